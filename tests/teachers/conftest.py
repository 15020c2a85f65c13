from teacher_fixtures import rows_of, task, teacher, write_jsonl  # noqa: F401
