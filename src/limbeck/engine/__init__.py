"""The engine: reads recipes, runs their steps over candidates, and stores the results."""
