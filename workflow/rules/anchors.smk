# Category anchors of the source under the model that the stage starts from (Eq. 4).


rule anchors:
    input:
        manifest=MANIFEST,
        checkpoint=labeller,
    output:
        f"{GIVEN}/anchors.h5",
    log:
        f"{GIVEN}/log/anchors.txt",
    benchmark:
        f"{GIVEN}/benchmark/anchors.tsv"
    priority: 100
    threads: configuration.compute.threads
    resources:
        mem_mb=8000,
        runtime=240,
    params:
        config=CONFIG,
        settings=fingerprint(anchors=without("anchors", "every_stage")),
        method_version=METHOD_VERSION,
    shell:
        "python -m caguda anchors --config {params.config} --manifest {input.manifest}"
        " --checkpoint {input.checkpoint} --output {output} > {log} 2>&1"
