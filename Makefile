# Short names for the chores of `cargo xtask`, where the work is done.
.PHONY: help up down test test-machine check bench density install uninstall

help: ## what can be made
	@sed -n 's/^\([a-z-]*\):.*## /make \1	/p' $(MAKEFILE_LIST)

up: ## build, prepare a node and run a Debian VE on it
	@cargo xtask up

down: ## take the node and everything on it away again
	@cargo xtask down

test: ## run every test (needs root)
	@cargo xtask test

density: ## hold 300 Debian VEs, then 1,000 light ones, and measure that (needs root)
	@cargo xtask bench density

bench: ## measure everything beside other runtimes (needs root)
	@cargo xtask bench

test-machine: ## run tests on an emulated Debian 13 with cgroup v2 (needs root)
	@cargo xtask machine

check: ## run what CI runs besides the tests
	@cargo xtask check

install: ## put programs, units and pages below /usr/local and /etc/systemd
	@cargo xtask install

uninstall: ## take those away again
	@cargo xtask uninstall
