# The IoU of every model on the target's evaluation frames.


rule evaluate:
    input:
        manifest=MANIFEST,
        checkpoint=checkpoint_of_job,
    output:
        f"{MODEL}/evaluation.json",
    log:
        f"{MODEL}/log/evaluate.txt",
    benchmark:
        f"{MODEL}/benchmark/evaluate.tsv"
    conda:
        "../envs/caguda.yaml"
    threads: configuration.compute.threads
    resources:
        gpu=1,
        mem_mb=8000,
        runtime=240,
    params:
        config=CONFIG,
        settings=settings_json("inference", **settings_of_pass(configuration)),
        method_version=METHOD_VERSION,
    shell:
        "python -m caguda evaluate --config {params.config:q} --manifest {input.manifest:q}"
        " --checkpoint {input.checkpoint:q} --output {output:q} > {log:q} 2>&1"
