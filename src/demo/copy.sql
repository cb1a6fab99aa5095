copy demo.character (code_point, name, category, combining_class, decomposition) from stdin
