.PHONY: setup check fast test all serve

setup:
	scripts/setup --dev

check:
	scripts/check

fast:
	scripts/test --fast

test:
	scripts/test

all:
	scripts/test --all

serve:
	scripts/serve
