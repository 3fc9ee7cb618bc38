# The frames: generated if the configuration has `street`, then all of them opened, measured and listed once.

if configuration.street:

    rule generate:
        output:
            GENERATED,
        log:
            f"{EXPERIMENT}/log/generate.txt",
        benchmark:
            f"{EXPERIMENT}/benchmark/generate.tsv"
        conda:
            "../envs/caguda.yaml"
        threads: 8
        resources:
            mem_mb=4000,
            runtime=60,
        params:
            config=CONFIG,
            settings=settings_json("street"),
            method_version=METHOD_VERSION,
        shell:
            "python -m caguda generate --config {params.config:q} --output {output:q} > {log:q} 2>&1"


# The verb records each file's result in check/ beside the manifest, so that the next check opens changed files alone. That record
# is no output, since Snakemake deletes a rule's outputs before it runs.
rule check:
    input:
        GENERATED,
        force_stale,  # no file: has Snakemake make again what is out of date
    output:
        MANIFEST,
    log:
        f"{EXPERIMENT}/log/check.txt",
    benchmark:
        f"{EXPERIMENT}/benchmark/check.tsv"
    conda:
        "../envs/caguda.yaml"
    threads: 8
    resources:
        mem_mb=4000,
        runtime=240,
    params:
        config=CONFIG,
        settings=settings_json(
            "street",
            "classes",
            "ignore",
            **without_root("source", "target", "evaluation"),
            **plugins_of(configuration, ["source", "target", "evaluation"]),
        ),
        method_version=METHOD_VERSION,
    shell:
        "python -m caguda check --config {params.config:q} --output {output:q} > {log:q} 2>&1"


# Images for the test server. No training depends on them: they can be added when all is trained.
if configuration.test:

    rule check_test:
        input:
            GENERATED,
            force_stale,
        output:
            MANIFEST_OF["test"],
        log:
            f"{EXPERIMENT}/log/check_test.txt",
        benchmark:
            f"{EXPERIMENT}/benchmark/check_test.tsv"
        conda:
            "../envs/caguda.yaml"
        threads: 8
        resources:
            mem_mb=4000,
            runtime=240,
        params:
            config=CONFIG,
            settings=settings_json(
                "street", "classes", "ignore", **without_root("test"), **plugins_of(configuration, ["test"])
            ),
            method_version=METHOD_VERSION,
        shell:
            "python -m caguda check-test --config {params.config:q} --output {output:q} > {log:q} 2>&1"


# Source frames that were translated elsewhere. Only the trainings that read them depend on this file: the set can be added or
# changed without another training.
if configuration.translated:

    rule check_translated:
        input:
            manifest=MANIFEST,
        output:
            TRANSLATED,
        log:
            f"{EXPERIMENT}/log/check_translated.txt",
        benchmark:
            f"{EXPERIMENT}/benchmark/check_translated.tsv"
        conda:
            "../envs/caguda.yaml"
        threads: 8
        resources:
            mem_mb=4000,
            runtime=240,
        params:
            config=CONFIG,
            settings=settings_json(
                "street", "classes", "ignore", **without_root("source"), **plugins_of(configuration, ["source"])
            ),
            method_version=METHOD_VERSION,
        shell:
            "python -m caguda check-translated --config {params.config:q} --manifest {input.manifest:q} --output {output:q}"
            " > {log:q} 2>&1"


# With `cache: true`: the frames of a set, decoded once for all trainings.
rule pack:
    input:
        manifest=lambda wildcards: TRANSLATED if wildcards.domain == "translated" else MANIFEST,
    output:
        PACKED,
    log:
        f"{EXPERIMENT}/log/pack.{{domain}}.txt",
    benchmark:
        f"{EXPERIMENT}/benchmark/pack.{{domain}}.tsv"
    priority: 100
    conda:
        "../envs/caguda.yaml"
    threads: 8
    resources:
        mem_mb=8000,
        runtime=480,
    params:
        config=CONFIG,
        settings=settings_json("classes", "ignore"),
        method_version=METHOD_VERSION,
    shell:
        "python -m caguda pack --config {params.config:q} --manifest {input.manifest:q} --domain {wildcards.domain:q}"
        " --output {output:q} > {log:q} 2>&1"
