"""Writes TF Serving's files for a model: warm-up, configurations, a README.

Warm-up requests are in the folder of each version. The other files are in the
folder `serving` beside the versions, which the server ignores; they are never
overwritten, so that users can edit them. The README, which is also the model
card, is written anew for each version unless it was edited.
"""

import dataclasses
import json
import os
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import tensorflow as tf
from google.protobuf import text_format
from tensorflow_serving.apis import (
    classification_pb2,
    input_pb2,
    model_pb2,
    predict_pb2,
    prediction_log_pb2,
)
from tensorflow_serving.config import model_server_config_pb2

from bert_keras import commands, model_card, signatures, verification
from bert_keras import predictor as predictor_lib
from bert_keras.serving import compatibility
from bert_keras.tasks import base, masked_lm

WARM_UP = os.path.join("assets.extra", "tf_serving_warmup_requests")
FOLDER = "serving"

# Batch sizes of warm-up requests, so that kernels are ready before real
# requests of these or similar sizes.
BATCHES = (1, 2, 4, 8, 16, 32)
WARM_UP_LENGTH = 16  # tokens
# Maximum number of texts per batch, and per request.
MAX_BATCH, MAX_REQUEST = 64, 4096
# How long a request may wait to be batched: short compared with a call of BERT,
# about 20 ms.
BATCH_TIMEOUT = 2000  # microseconds


def warm_up(path: str, name: str, predictor: predictor_lib.Predictor) -> None:
    """Writes warm-up requests, which the server runs before real ones.

    They are strings for `serving_default` in every batch size, ids for
    `tokens`, a string for `with_settings` if the task has such settings, and,
    if it has classes, a tf.Example for `classify`.
    """
    tf.io.gfile.makedirs(os.path.dirname(path))
    with tf.io.TFRecordWriter(path) as writer:
        for log in _requests(name, predictor):
            writer.write(log.SerializeToString())


def _requests(
    name: str, predictor: predictor_lib.Predictor
) -> Iterator[prediction_log_pb2.PredictionLog]:
    task, config = predictor.task, predictor.model.encoder.config

    def rows(count: int) -> dict[str, Sequence[str]]:
        sentences = verification.SENTENCES * (4 + count)
        return {
            text: sentences[i : i + count]
            for i, text in enumerate(task.text_columns)
        }

    def model_spec(signature: str) -> model_pb2.ModelSpec:
        return model_pb2.ModelSpec(name=name, signature_name=signature)

    def predict(signature, inputs):
        request = predict_pb2.PredictRequest(
            model_spec=model_spec(signature),
            inputs={
                key: tf.make_tensor_proto(value)
                for key, value in inputs.items()
            },
        )
        return prediction_log_pb2.PredictionLog(
            predict_log=prediction_log_pb2.PredictLog(request=request)
        )

    for count in BATCHES:
        yield predict(signatures.TEXT, rows(count))
    for count in (1, BATCHES[-1]):
        ids = {
            key: np.zeros((count, task.max_row_length, *shape), np.int32)
            for key, shape in config.inputs.items()
        }
        for key, value in ids.items():
            value[:, :WARM_UP_LENGTH] = key != "segment_ids"
        yield predict(signatures.TOKENS, ids)
    if task.request_settings:
        settings = signatures.some_settings(task, 1)
        yield predict(
            signatures.WITH_SETTINGS,
            rows(1) | {key: value.numpy() for key, value in settings.items()},
        )
    if task.class_names:
        request = classification_pb2.ClassificationRequest(
            model_spec=model_spec(signatures.CLASSIFY),
            input=input_pb2.Input(
                example_list=input_pb2.ExampleList(
                    examples=map(
                        tf.train.Example.FromString,
                        signatures.serialized_examples(rows(1)),
                    )
                )
            ),
        )
        yield prediction_log_pb2.PredictionLog(
            classify_log=prediction_log_pb2.ClassifyLog(request=request)
        )


def write(
    output: str,
    name: str,
    task: base.Task,
    *,
    max_entities: int,
    text_ops: Sequence[str],
    card: model_card.Card | None = None,
) -> None:
    """Writes the server's files to `output`/serving, except existing ones.

    card: the model's; its head and its sections become part of the README.
    """
    folder = os.path.join(output, FOLDER)
    tf.io.gfile.makedirs(folder)
    for file, content in _files(name).items():
        path = os.path.join(folder, file)
        if not tf.io.gfile.exists(path):
            with tf.io.gfile.GFile(path, "w") as out:
                out.write(content)
    card = card or model_card.Card(name, {}, {})
    introduction = card.sections.get(model_card.INTRODUCTION, "")
    use = _readme(name, task, max_entities, text_ops)
    card = dataclasses.replace(card, name=f"{name}, served").with_section(
        model_card.INTRODUCTION, f"{introduction}\n\n{use}".strip()
    )
    sections = {k: v for k, v in card.sections.items() if k != model_card.USE}
    model_card.write(
        os.path.join(folder, model_card.FILE),
        dataclasses.replace(card, sections=sections),
    )


def image() -> str:
    """Returns the image of the newest known server.

    It may be older than the TensorFlow that wrote the model: what matters are
    the model's ops and attributes, which compatibility.problems checks.
    """
    return f"tensorflow/serving:{compatibility.NEWEST}"


def _files(name: str) -> Mapping[str, str]:
    return {
        "models.config": _models(name),
        "batching.config": _BATCHING,
        "monitoring.config": _MONITORING,
        "docker-compose.yaml": _compose(name),
    }


def _models(name: str) -> str:
    config = model_server_config_pb2.ModelServerConfig()
    model = config.model_config_list.config.add()
    model.name, model.base_path = name, f"/models/{name}"
    model.model_platform = "tensorflow"
    model.model_version_policy.latest.num_versions = 1
    return text_format.MessageToString(config)


_BATCHING = f"""\
# Requests that arrive together are answered together, and a large one in parts;
# one of more than {MAX_REQUEST:,} texts is refused.
max_batch_size {{ value: {MAX_REQUEST} }}
enable_large_batch_splitting {{ value: true }}
max_execution_batch_size {{ value: {MAX_BATCH} }}
batch_timeout_micros {{ value: {BATCH_TIMEOUT} }}
# On a CPU one batch at a time keeps all cores busy.
num_batch_threads {{ value: 1 }}
max_enqueued_batches {{ value: 1000 }}
# No allowed_batch_sizes: the model takes any size, and padding costs time.
# Texts need no padding, and ids have one length: all requests can be batched.
# The server pads with a tensor's first element, which is 1 in padding_mask:
# leave this off.
pad_variable_length_inputs: false
"""

_MONITORING = """\
prometheus_config {
  enable: true
  path: "/monitoring/prometheus/metrics"
}
"""

# Environment of a server on a CPU. Huge pages reduce the time of BERT-base, one
# text of 128 tokens, by 7 %.
ENVIRONMENT = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}

# Not set: oneDNN then packs the weights once per signature, which takes their
# memory again for each (951 MB became 1,594 MB for three signatures of 169 MB),
# and in the layout that suits the length of the signature's first request.
FROZEN_WEIGHTS = "TF_ONEDNN_ASSUME_FROZEN_WEIGHTS"

_COMPOSE = """\
# docker compose -f docker-compose.yaml up
services:
  {name}:
    image: {image}
    ports:
      - "8500:8500"  # gRPC
      - "8501:8501"  # REST
    volumes:
      - {volume}
    # Faster on a CPU: huge pages, if the system allows them on request.
    environment:
{environment}
      # 5 % faster where all texts have about one length; takes the memory of
      # the weights again for each signature that is called:
      # {frozen_weights}: "1"
    command:
      - {models}
      - --enable_batching=true
      - {batching}
      - {monitoring}
      - --enable_model_warmup=true
      - --rest_api_timeout_in_ms=30000
    restart: unless-stopped
"""


def _compose(name: str) -> str:
    # Quoted as JSON, which is valid YAML: a name such as 2026, 1.5, null or on
    # stays a string.
    folder = f"/models/{name}/{FOLDER}"
    return _COMPOSE.format(
        name=json.dumps(name),
        image=image(),
        environment="\n".join(
            f"      {key}: {json.dumps(value)}"
            for key, value in ENVIRONMENT.items()
        ),
        frozen_weights=FROZEN_WEIGHTS,
        volume=json.dumps(f"..:/models/{name}:ro"),
        models=json.dumps(f"--model_config_file={folder}/models.config"),
        batching=json.dumps(
            f"--batching_parameters_file={folder}/batching.config"
        ),
        monitoring=json.dumps(
            f"--monitoring_config_file={folder}/monitoring.config"
        ),
    )


def _readme(
    name: str, task: base.Task, max_entities: int, text_ops: Sequence[str]
) -> str:
    sentences = verification.SENTENCES
    row = {
        text: sentences[i % len(sentences)]
        for i, text in enumerate(task.text_columns)
    }

    def curl(verb: str, body: Mapping[str, object]) -> str:
        body = json.dumps(body, ensure_ascii=False)
        return f"curl localhost:8501/v1/models/{name}:{verb} -d '{body}'"

    requests = {
        "A row": curl("predict", {"instances": [row]}),
        "Columns": curl(
            "predict",
            {"inputs": {text: [row[text]] for text in task.text_columns}},
        ),
    }
    if task.class_names:
        requests["tf.Examples"] = curl(
            "classify",
            {"signature_name": signatures.CLASSIFY, "examples": [row]},
        )
    requests |= {
        "Is it ready?": f"curl localhost:8501/v1/models/{name}",
        "Signatures": f"curl localhost:8501/v1/models/{name}/metadata",
        "Metrics": "curl localhost:8501/monitoring/prometheus/metrics",
    }
    has_offsets = any(key.startswith("start") for key in task.list_padding)
    libraries = sorted({compatibility.TEXT_OPS.get(op, op) for op in text_ops})
    text = _README.format(
        name=name,
        image=image(),
        length=task.max_row_length,
        lists=_lists(task, max_entities),
        offsets=_OFFSETS if has_offsets else "",
        libraries="".join(
            f'TF_LoadLibrary("{library}", status);\n' for library in libraries
        ),
        java="".join(
            f'TensorFlow.loadLibrary("{library}");\n' for library in libraries
        ),
        tensorflow=tf.__version__,
        server=compatibility.NEWEST,
        requests="\n\n".join(
            f"{title}:\n\n```\n{line}\n```" for title, line in requests.items()
        ),
    )
    return commands.as_called(text)


def _lists(task: base.Task, max_entities: int) -> str:
    if isinstance(task.unwrapped, masked_lm.MaskedLM):
        return _MASKS.format(max_masks=masked_lm.MAX_PREDICTED_MASKS)
    if not task.list_padding:
        return ""
    return _LISTS.format(
        names=", ".join(f"`{name}`" for name in task.list_padding),
        empty=", ".join(
            json.dumps(empty) for empty in task.list_padding.values()
        ),
        width=task.list_width or max_entities,
        more=(
            f"A `count` above {max_entities} means truncated lists: export "
            "with\n  a larger --max_entities."
            if task.list_width is None
            else "There are never more."
        ),
    )


_MASKS = """\
- `token` and `score` have {max_masks} items each, one for each [MASK] of the
  text in order; the rest is padding: "" and 0. A [MASK] after the {max_masks}th
  is not predicted.
"""

_LISTS = """\
- The lists {names}
  have {width} items each; `count` is the number of real items, and the rest is
  padding: {empty}.
  {more}
"""

_README = """\
```
docker compose -f docker-compose.yaml up
```

These files are untested: no server ran where they were written. The image is
the newest that was known, {server}; TensorFlow {tensorflow} wrote the model. A
server may be older than that, if it has the model's ops, which
`bert-keras verify --model=VERSION_FOLDER --server={server}` checks. It needs
the ops of TensorFlow Text too, which the official images have. All ops are in
`assets.extra/manifest.json` of each version.

{requests}

From Python, in batches, with a deadline and retries:

```
bert-keras client --url=http://localhost:8501/v1/models/{name} < texts
bert-keras client --url=grpc://localhost:8500/{name} < texts
```

## What to know

- A new version is a new numbered folder, moved into place atomically; the
  server loads it and unloads the old one. To go back, remove the newest folder.
- The server runs `assets.extra/tf_serving_warmup_requests` before a version
  serves, so that the version's first request is not slow.
- Texts of any length, empty texts and bytes that are not UTF-8 are answered;
  `truncated` is true if a text was not read to its end.
- The model splits a batch by length, so one long text does not slow down the
  others. `batching.config` has one thread for batches, which is right for a
  CPU: one batch keeps its cores busy.
- The width of an answer does not depend on the other texts of a batch, so the
  server may split a request, and join several.
{lists}- The signature `tokens` takes token ids, tokenized elsewhere, in rows of
  {length} tokens; pad shorter rows with 0 in all inputs. Columns that are
  padding in all rows of a batch are not computed. Rows of another length are
  refused: the server could not join them with those of other clients.
{offsets}- GPU: use the image `{image}-gpu`, give the container the device
  (`deploy.resources.reservations.devices` in compose), raise
  `max_execution_batch_size` to 128 or more and `num_batch_threads` to 2, so
  that the CPU tokenizes the next batch while the GPU computes one. Export with
  float32: an export with bfloat16 is made for CPUs.
- `bert-keras verify --model=VERSION_FOLDER` checks every file against its
  SHA-256.

## From C, C++ and Java, without a server

TensorFlow's own libraries lack the ops that split text; without them loading
ends in `Op type not registered`. They are in the wheel of tensorflow-text, in
`tensorflow_text/python/ops`, of the same version as the library. Load them
before the model. C and C++:

```c
TF_Status* status = TF_NewStatus();
{libraries}```

Java:

```java
{java}```
"""

_OFFSETS = """\
- `start` and `end` count code points, as Python's strings do, from 0; `end` is
  exclusive. JavaScript, Java, Kotlin and Swift count other units, so
  that slices are wrong after an emoji. The substring:

  ```js
  [...text].slice(start, end).join("")
  ```

  ```java
  text.substring(text.offsetByCodePoints(0, start), \
text.offsetByCodePoints(0, end))
  ```

  ```swift
  String(text.unicodeScalars.dropFirst(start).prefix(end - start))
  ```
"""
