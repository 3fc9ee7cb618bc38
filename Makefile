# make demo   the embedded scenario, from generated street scenes to the report
# make test   the tests, without those that take minutes; `make test-all` has all of them
# Each sets up .venv first if need be. Everything can be interrupted and repeated.

.PHONY: demo test test-all
.DELETE_ON_ERROR:

CANDIDATES := python3 python3.14 python3.13 python3.12 python3.11
PYTHON ?= $(shell for p in $(CANDIDATES); do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
REQUIREMENTS := pyproject.toml constraints.txt
PYTEST := OMP_NUM_THREADS=1 .venv/bin/python -m pytest -n logical --dist loadgroup

demo: .venv/installed
	.venv/bin/snakemake --cores all --configfile config/demo.yaml --quiet host reason
	@echo
	@cat results/street/cag/table.md
	@echo
	@echo "The report: $(CURDIR)/results/street/cag/report.html"

test: .venv/installed-test
	$(PYTEST) -m "not slow"

test-all: .venv/installed-test
	$(PYTEST)

# A stamp is touched last: an installation that was interrupted is taken up again.
.venv/installed: $(REQUIREMENTS)
	$(call install,.)
	touch $@

.venv/installed-test: $(REQUIREMENTS)
	$(call install,.[test])
	touch .venv/installed $@

define install
$(if $(PYTHON),,$(error caguda needs Python 3.11 or newer, found none among $(CANDIDATES); install one, or name it: make PYTHON=/path/to/python3.11))
$(PYTHON) -m venv .venv
.venv/bin/python -m pip install --quiet -c constraints.txt -e "$(1)"
endef
