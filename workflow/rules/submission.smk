# What Cityscapes' test server takes: the label ids of every frame of a set as PNG files, and all of them in one zip.
# The files are written one by one into a folder beside the JSON, which comes last and vouches for them.


rule predict:
    input:
        manifest=lambda wildcards: MANIFEST_OF[wildcards.frames],
        checkpoint=f"{SEED}/{{run}}/checkpoint.safetensors",
    output:
        f"{SEED}/{{run}}/predictions/{{frames}}.json",
    log:
        f"{SEED}/{{run}}/log/predict.{{frames}}.txt",
    benchmark:
        f"{SEED}/{{run}}/benchmark/predict.{{frames}}.tsv"
    threads: configuration.compute.threads
    resources:
        gpu=1,
        mem_mb=8000,
        runtime=480,
    params:
        config=CONFIG,
        settings=fingerprint("inference"),
        method_version=METHOD_VERSION,
        folder=subpath(output[0], strip_suffix=".json"),
    shell:
        "python -m caguda predict --config {params.config} --manifest {input.manifest}"
        " --checkpoint {input.checkpoint} --set {wildcards.frames} --folder {params.folder} --output {output}"
        " > {log} 2>&1"


rule submission_zip:
    input:
        manifest=MANIFEST_OF[PREDICTED],
        predictions=f"{SEED}/{{run}}/predictions/{PREDICTED}.json",
    output:
        archive=f"{SEED}/{{run}}/submission.zip",
        description=f"{SEED}/{{run}}/submission.json",
    log:
        f"{SEED}/{{run}}/log/submission.txt",
    benchmark:
        f"{SEED}/{{run}}/benchmark/submission.tsv"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=60,
    params:
        method_version=METHOD_VERSION,
    shell:
        "python -m caguda submission --manifest {input.manifest} --predictions {input.predictions}"
        " --output {output.archive} > {log} 2>&1"
