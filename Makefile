# Short names for the chores of `cargo xtask`, where the work is done.
.PHONY: help up down test check bench

help: ## what can be made
	@sed -n 's/^\([a-z]*\):.*## /make \1	/p' $(MAKEFILE_LIST)

up: ## build, prepare a node and run a Debian VE on it
	@cargo xtask up

down: ## take the node and everything on it away again
	@cargo xtask down

test: ## run every test (needs root)
	@cargo xtask test

bench: ## measure everything beside other runtimes (needs root)
	@cargo xtask bench

check: ## run what CI runs besides the tests
	@cargo xtask check
