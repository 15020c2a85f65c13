"""The engine: reads recipes, runs their steps over candidates, and keeps what came out."""
