# make demo   the embedded scenario, from generated street scenes to the report
# make test   the tests, without the slowest ones; `make test-all` has all of them
# make check  everything that can be checked without running the method: style, types, the workflow, the schema
# make bench  the benchmarks of benchmarks/README.md but kills, corruptions and the GPU's, one after another: an hour on two idle cores
# Each sets up .venv first if need be. Everything can be interrupted and repeated.

.PHONY: demo test test-all check schema bench
.DELETE_ON_ERROR:

CANDIDATES := python3 python3.14 python3.13 python3.12 python3.11
PYTHON ?= $(shell for p in $(CANDIDATES); do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
REQUIREMENTS := pyproject.toml constraints.txt
BENCHMARKS := step passes growth startup versions evaluation method check loader labels workflow plan
PYTEST := OMP_NUM_THREADS=1 .venv/bin/python -m pytest -n logical --dist worksteal

demo: .venv/installed
	.venv/bin/snakemake --cores all --configfile config/demo.yaml --quiet host reason
	@echo
	@cat results/street/reports/cag/table.md
	@echo
	@echo "The report: $(CURDIR)/results/street/reports/cag/report.html"

test: .venv/installed-test
	$(PYTEST) -m "not slow"

test-all: .venv/installed-test
	$(PYTEST)

check: .venv/installed-dev
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	.venv/bin/snakefmt --check workflow
	.venv/bin/snakemake --lint --configfile config/demo.yaml
	.venv/bin/python -m caguda schema | diff config/schema.json -

bench: .venv/installed-test
	@for name in $(BENCHMARKS); do \
		printf '\n## benchmarks/%s.py\n\n' "$$name"; .venv/bin/python "benchmarks/$$name.py" || exit; done

# After a change of the configuration's models.
schema: .venv/installed-dev
	.venv/bin/python -m caguda schema > config/schema.json

# A stamp is touched last: an installation that was interrupted is taken up again.
.venv/installed: $(REQUIREMENTS)
	$(call install,.)
	touch $@

.venv/installed-test: $(REQUIREMENTS)
	$(call install,.[test])
	touch .venv/installed $@

.venv/installed-dev: $(REQUIREMENTS)
	$(call install,.[dev])
	touch .venv/installed $@

define install
$(if $(PYTHON),,$(error caguda needs Python 3.11 or newer, found none among $(CANDIDATES); install one, or name it: make PYTHON=/path/to/python3.11))
@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "caguda needs Python 3.11 or newer, found $(PYTHON), which is older or does not run; name another: make PYTHON=/path/to/python3.11" >&2; exit 1; }
@test ! -e .venv || .venv/bin/python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || "$(PYTHON)" -m venv --clear .venv
"$(PYTHON)" -m venv .venv
.venv/bin/python -m pip install --quiet -c constraints.txt -e "$(1)"
endef
