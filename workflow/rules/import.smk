# Models that a user brings, in place of those of runs before the stages, which are not trained then.

if configuration.start_from:

    rule import_checkpoint:
        input:
            lambda wildcards: brought(wildcards.imported),
            renewed,
        output:
            checkpoint=f"{SEED}/{{imported}}/checkpoint.safetensors",
            description=f"{SEED}/{{imported}}/checkpoint.json",
        log:
            f"{SEED}/{{imported}}/log/import.txt",
        benchmark:
            f"{SEED}/{{imported}}/benchmark/import.tsv"
        priority: 100
        conda:
            "../envs/caguda.yaml"
        threads: 1
        resources:
            mem_mb=4000,
            runtime=30,
        params:
            config=CONFIG,
            settings=fingerprint("network", "classes"),
            method_version=METHOD_VERSION,
        shell:
            "python -m caguda import --config {params.config:q} --run {wildcards.imported:q} --seed {wildcards.seed:q}"
            " --input {input[0]:q} --output {output.checkpoint:q} > {log:q} 2>&1"
