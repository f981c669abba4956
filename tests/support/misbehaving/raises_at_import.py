raise ZeroDivisionError("no luck at import")
