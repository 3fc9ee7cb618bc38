# Training on the source alone: M0^p, "source only".


rule pretrain:
    input:
        manifest=MANIFEST,
        packed=caches("source"),
    output:
        checkpoint=f"{SEED}/pretrain/checkpoint.safetensors",
        description=f"{SEED}/pretrain/checkpoint.json",
    log:
        f"{SEED}/pretrain/log/pretrain.txt",
    benchmark:
        f"{SEED}/pretrain/benchmark/pretrain.tsv"
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
        settings=fingerprint("network", "pretrain", training=TRAINING),
        method_version=METHOD_VERSION,
        state=placed(f"{SEED}/pretrain/state"),
    shell:
        "exec python -m caguda pretrain --config {params.config:q} --seed {wildcards.seed:q} --manifest {input.manifest:q}"
        " --output {output.checkpoint:q} --state {params.state:q} --packed {input.packed:q} > {log:q} 2>&1"
