# The label ids of every frame of a set as PNG files (Algorithm 1, line 12), and one zip of them for Cityscapes' test server.
# Several jobs write the files, one by one, into a folder. The JSON beside the folder comes last, with the digests of all files.


rule predict_part:
    input:
        manifest=lambda wildcards: MANIFEST_OF[wildcards.frames],
        checkpoint=checkpoint_of_job,
    output:
        f"{MODEL}/predictions/parts/{{frames}}.{{part}}-of-{{parts}}.json",
    log:
        f"{MODEL}/log/predict_part.{{frames}}.{{part}}-of-{{parts}}.txt",
    benchmark:
        f"{MODEL}/benchmark/predict_part.{{frames}}.{{part}}-of-{{parts}}.tsv"
    conda:
        "../envs/caguda.yaml"
    threads: configuration.compute.threads
    resources:
        gpu=1,
        mem_mb=8000,
        runtime=480,
    params:
        config=CONFIG,
        settings=settings_json("inference", **settings_of_pass(configuration)),
        method_version=METHOD_VERSION,
        folder=below_prefix(f"{MODEL}/predictions/{{frames}}"),
    shell:
        "python -m caguda predict-part --config {params.config:q} --manifest {input.manifest:q}"
        " --checkpoint {input.checkpoint:q} --set {wildcards.frames:q} --folder {params.folder:q}"
        " --part {wildcards.part:q} --parts {wildcards.parts:q} --output {output:q} > {log:q} 2>&1"


rule predict:
    input:
        manifest=lambda wildcards: MANIFEST_OF[wildcards.frames],
        checkpoint=checkpoint_of_job,
        parts=lambda wildcards: parts_of(
            of_model(wildcards.seed, wildcards.model, "predictions"), f"{wildcards.frames}.json"
        ),
    output:
        f"{MODEL}/predictions/{{frames}}.json",
    log:
        f"{MODEL}/log/predict.{{frames}}.txt",
    benchmark:
        f"{MODEL}/benchmark/predict.{{frames}}.tsv"
    conda:
        "../envs/caguda.yaml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=60,
    params:
        config=CONFIG,
        method_version=METHOD_VERSION,
        folder=subpath(output[0], strip_suffix=".json"),
    shell:
        "python -m caguda predict --config {params.config:q} --manifest {input.manifest:q}"
        " --checkpoint {input.checkpoint:q} --set {wildcards.frames:q} --folder {params.folder:q} --part-files {input.parts:q}"
        " --output {output:q} > {log:q} 2>&1"


rule submission_zip:
    input:
        manifest=MANIFEST_OF[PREDICTED],
        predictions=f"{MODEL}/predictions/{PREDICTED}.json",
    output:
        archive=f"{MODEL}/submission.zip",
        description=f"{MODEL}/submission.json",
    log:
        f"{MODEL}/log/submission.txt",
    benchmark:
        f"{MODEL}/benchmark/submission.tsv"
    conda:
        "../envs/caguda.yaml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=60,
    params:
        method_version=METHOD_VERSION,
    shell:
        "python -m caguda submission --manifest {input.manifest:q} --predictions {input.predictions:q}"
        " --output {output.archive:q} > {log:q} 2>&1"
