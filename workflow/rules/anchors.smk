# Category anchors of the source under the model that the stage starts from (Eq. 4).


rule anchors:
    input:
        manifest=MANIFEST,
        checkpoint=before,
    output:
        f"{STAGE}/anchors.h5",
    params:
        config=CONFIG,
        method_version=METHOD_VERSION,
    log:
        f"{STAGE}/log/anchors.txt",
    benchmark:
        f"{STAGE}/benchmark/anchors.tsv"
    threads: configuration.threads
    priority: 100
    resources:
        mem_mb=8000,
        runtime=240,
    shell:
        "python -m caguda anchors --config {params.config} --manifest {input.manifest}"
        " --checkpoint {input.checkpoint} --output {output} > {log} 2>&1"
