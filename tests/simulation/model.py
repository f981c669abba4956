def check_model() -> int: return 0
