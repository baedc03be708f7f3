"""How good are retrieval, answers and silence on given questions? No judge model."""
