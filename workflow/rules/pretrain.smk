# Training on the source alone: M0^p, "source only".


rule pretrain:
    input:
        manifest=MANIFEST,
    output:
        checkpoint=f"{SEED}/pretrain/checkpoint.safetensors",
        description=f"{SEED}/pretrain/checkpoint.json",
    params:
        config=CONFIG,
        settings=fingerprint("network", "pretrain"),
        method_version=METHOD_VERSION,
        state=f"{SEED}/pretrain/state",
    log:
        f"{SEED}/pretrain/log/pretrain.txt",
    benchmark:
        f"{SEED}/pretrain/benchmark/pretrain.tsv"
    threads: configuration.threads
    priority: 100
    resources:
        mem_mb=16000,
        runtime=2880,
    shell:
        "python -m caguda pretrain --config {params.config} --seed {wildcards.seed} --manifest {input.manifest}"
        " --output {output.checkpoint} --state {params.state} > {log} 2>&1"
