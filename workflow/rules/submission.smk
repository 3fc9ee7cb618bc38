# What Cityscapes' test server takes: the label ids of every frame of a set as PNG files, and all of them in one zip.
# The files are written one by one, by several jobs, into a folder beside the JSON, which comes last and vouches for them.


rule predict_part:
    input:
        manifest=lambda wildcards: MANIFEST_OF[wildcards.frames],
        checkpoint=f"{SEED}/{{run}}/checkpoint.safetensors",
    output:
        f"{SEED}/{{run}}/predictions/parts/{{frames}}.{{part}}-of-{{parts}}.json",
    log:
        f"{SEED}/{{run}}/log/predict_part.{{frames}}.{{part}}-of-{{parts}}.txt",
    benchmark:
        f"{SEED}/{{run}}/benchmark/predict_part.{{frames}}.{{part}}-of-{{parts}}.tsv"
    conda:
        "../envs/caguda.yaml"
    threads: configuration.compute.threads
    resources:
        gpu=1,
        mem_mb=8000,
        runtime=480,
    params:
        config=CONFIG,
        settings=fingerprint("inference"),
        method_version=METHOD_VERSION,
        folder=placed(f"{SEED}/{{run}}/predictions/{{frames}}"),
    shell:
        "python -m caguda predict-part --config {params.config:q} --manifest {input.manifest:q}"
        " --checkpoint {input.checkpoint:q} --set {wildcards.frames:q} --folder {params.folder:q}"
        " --part {wildcards.part:q} --parts {wildcards.parts:q} --output {output:q} > {log:q} 2>&1"


rule predict:
    input:
        manifest=lambda wildcards: MANIFEST_OF[wildcards.frames],
        checkpoint=f"{SEED}/{{run}}/checkpoint.safetensors",
        parts=lambda wildcards: parts_of(
            f"{EXPERIMENT}/seed{wildcards.seed}/{wildcards.run}/predictions", f"{wildcards.frames}.json"
        ),
    output:
        f"{SEED}/{{run}}/predictions/{{frames}}.json",
    log:
        f"{SEED}/{{run}}/log/predict.{{frames}}.txt",
    benchmark:
        f"{SEED}/{{run}}/benchmark/predict.{{frames}}.tsv"
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
        predictions=f"{SEED}/{{run}}/predictions/{PREDICTED}.json",
    output:
        archive=f"{SEED}/{{run}}/submission.zip",
        description=f"{SEED}/{{run}}/submission.json",
    log:
        f"{SEED}/{{run}}/log/submission.txt",
    benchmark:
        f"{SEED}/{{run}}/benchmark/submission.tsv"
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
