# Adversarial global alignment of the two domains: M0, which the first stage starts from.


rule warmup:
    input:
        manifest=MANIFEST,
        packed=caches("source", "target"),
        initial=f"{SEED}/pretrain/checkpoint.safetensors",
    output:
        checkpoint=f"{SEED}/warmup/checkpoint.safetensors",
        description=f"{SEED}/warmup/checkpoint.json",
    log:
        f"{SEED}/warmup/log/warmup.txt",
    benchmark:
        f"{SEED}/warmup/benchmark/warmup.tsv"
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
        settings=fingerprint("warmup", training=TRAINING),
        method_version=METHOD_VERSION,
        state=placed(f"{SEED}/warmup/state"),
    shell:
        "exec python -m caguda warmup --config {params.config:q} --seed {wildcards.seed:q} --manifest {input.manifest:q}"
        " --initial {input.initial:q} --output {output.checkpoint:q} --state {params.state:q} --packed {input.packed:q}"
        " > {log:q} 2>&1"
