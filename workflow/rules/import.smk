# Files from elsewhere: the models of runs with `method: imported`, and the anchors of runs with the key `anchors`.

if imported_files(configuration):

    rule import_checkpoint:
        input:
            lambda wildcards: imported_inputs(wildcards.model),
            force_stale,
        output:
            checkpoint=f"{MODEL}/checkpoint.safetensors",
            description=f"{MODEL}/checkpoint.json",
        log:
            f"{MODEL}/log/import.txt",
        benchmark:
            f"{MODEL}/benchmark/import.tsv"
        wildcard_constraints:
            model=alternatives(imported_files(configuration)),
        priority: 100
        conda:
            "../envs/caguda.yaml"
        threads: 1
        resources:
            mem_mb=4000,
            runtime=30,
        params:
            config=CONFIG,
            settings=settings_json("classes", **recorded_network(configuration)),
            method_version=METHOD_VERSION,
        shell:
            "python -m caguda import --config {params.config:q} --model {wildcards.model:q} --seed {wildcards.seed:q}"
            " --input {input[0]:q} --output {output.checkpoint:q} > {log:q} 2>&1"


if ANCHORS_BY_FOLDER:

    rule convert_anchors:
        input:
            # The folder is of the content of the file, whatever its time.
            lambda wildcards: ancient(local(ANCHORS_BY_FOLDER[wildcards.folder])),
            force_stale,
        output:
            f"{EXPERIMENT}/{{folder}}/{CONVERTED}",
        log:
            f"{EXPERIMENT}/{{folder}}/log/convert_anchors.txt",
        benchmark:
            f"{EXPERIMENT}/{{folder}}/benchmark/convert_anchors.tsv"
        wildcard_constraints:
            folder=alternatives(ANCHORS_BY_FOLDER),
        priority: 100
        conda:
            "../envs/caguda.yaml"
        threads: 1
        resources:
            mem_mb=4000,
            runtime=30,
        params:
            config=CONFIG,
            settings=settings_json("classes", **recorded_network(configuration)),
            method_version=METHOD_VERSION,
        shell:
            "python -m caguda convert-anchors --config {params.config:q} --input {input[0]:q} --output {output:q}"
            " > {log:q} 2>&1"
