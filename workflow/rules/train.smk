# The training of every model: source only, a warm-up, a stage of Algorithm 1, a baseline, a control, the oracle. Its inputs
# are those that its method needs: the checkpoint that it starts from, and the anchors and pseudo-labels of that model.


rule train:
    input:
        manifest=lambda wildcards: manifests_given_to(model_of_job(wildcards)),
        packed=lambda wildcards: caches(*run_of(configuration, model_of_job(wildcards)).sets_read),
        start=lambda wildcards: start_given_to(wildcards.seed, wildcards.model),
        anchors=lambda wildcards: anchors_given_to(wildcards.seed, wildcards.model),
        labels=lambda wildcards: labels_given_to(wildcards.seed, wildcards.model),
    output:
        checkpoint=f"{MODEL}/checkpoint.safetensors",
        description=f"{MODEL}/checkpoint.json",
    log:
        f"{MODEL}/log/train.txt",
    benchmark:
        f"{MODEL}/benchmark/train.tsv"
    wildcard_constraints:
        model=rf"(?!(?:{alternatives(imported_files(configuration))})/){MODEL_PATTERN}",
    priority: 100
    conda:
        "../envs/caguda.yaml"
    threads: TRAINER_CORES
    resources:
        gpu=configuration.compute.processes,
        mem_mb=16000,
        runtime=2880,
    params:
        config=CONFIG,
        settings=lambda wildcards: json.dumps(settings_of_run(configuration, wildcards.model), sort_keys=True),
        method_version=METHOD_VERSION,
        state=below_prefix(f"{MODEL}/state"),
    shell:
        "exec python -m caguda train --config {params.config:q} --seed {wildcards.seed:q} --model {wildcards.model:q}"
        " --manifest {input.manifest:q} --start {input.start:q} --anchors {input.anchors:q} --labels {input.labels:q}"
        " --output {output.checkpoint:q} --state {params.state:q} --packed {input.packed:q} > {log:q} 2>&1"
