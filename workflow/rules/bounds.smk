# What the method is measured against. Nothing but evaluation, table and report reads these two.


# From below: as many iterations as all stages together from the same warm-up, with the source's cross entropy alone.
rule control:
    input:
        manifest=MANIFEST,
        packed=caches("source"),
        initial=f"{SEED}/warmup/checkpoint.safetensors",
    output:
        checkpoint=f"{SEED}/control/checkpoint.safetensors",
        description=f"{SEED}/control/checkpoint.json",
    log:
        f"{SEED}/control/log/control.txt",
    benchmark:
        f"{SEED}/control/benchmark/control.tsv"
    conda:
        "../envs/caguda.yaml"
    threads: TRAINER_CORES
    resources:
        gpu=configuration.compute.processes,
        mem_mb=16000,
        runtime=2880,
    params:
        config=CONFIG,
        settings=fingerprint("stages", training=TRAINING),
        method_version=METHOD_VERSION,
        state=placed(f"{SEED}/control/state"),
    shell:
        "exec python -m caguda control --config {params.config:q} --seed {wildcards.seed:q} --manifest {input.manifest:q}"
        " --initial {input.initial:q} --output {output.checkpoint:q} --state {params.state:q} --packed {input.packed:q}"
        " > {log:q} 2>&1"


# From above: training on the target's own labels.
rule oracle:
    input:
        manifest=MANIFEST,
        packed=caches("target"),
    output:
        checkpoint=f"{SEED}/oracle/checkpoint.safetensors",
        description=f"{SEED}/oracle/checkpoint.json",
    log:
        f"{SEED}/oracle/log/oracle.txt",
    benchmark:
        f"{SEED}/oracle/benchmark/oracle.tsv"
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
        state=placed(f"{SEED}/oracle/state"),
    shell:
        "exec python -m caguda oracle --config {params.config:q} --seed {wildcards.seed:q} --manifest {input.manifest:q}"
        " --output {output.checkpoint:q} --state {params.state:q} --packed {input.packed:q} > {log:q} 2>&1"
