SCENARIOS: dict = {}
table = str
