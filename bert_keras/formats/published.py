"""Published BERTs: their names at each source, and how to download them."""

import dataclasses
import os
import re

# Before a name, as in KerasHub.
HUGGING_FACE, KAGGLE = "hf://", "kaggle://"
SCHEMES = (HUGGING_FACE, KAGGLE)


@dataclasses.dataclass(frozen=True)
class Published:
    """A model that Google published, and its name at each source.

    zip: below https://storage.googleapis.com/bert_models (Google's README).
    hugging_face: with "model.safetensors"; empty: only a pickle is there.
    """

    zip: str
    preset: str
    hugging_face: str = ""


PUBLISHED = (
    Published(
        "2018_10_18/uncased_L-12_H-768_A-12.zip",
        "bert_base_en_uncased",
        "google-bert/bert-base-uncased",
    ),
    Published(
        "2018_10_18/cased_L-12_H-768_A-12.zip",
        "bert_base_en",
        "google-bert/bert-base-cased",
    ),
    Published(
        "2018_11_03/chinese_L-12_H-768_A-12.zip",
        "bert_base_zh",
        "google-bert/bert-base-chinese",
    ),
    Published(
        "2018_11_23/multi_cased_L-12_H-768_A-12.zip",
        "bert_base_multi",
        "google-bert/bert-base-multilingual-cased",
    ),
    Published(
        "2018_10_18/uncased_L-24_H-1024_A-16.zip",
        "bert_large_en_uncased",
        "google-bert/bert-large-uncased",
    ),
    Published(
        "2018_10_18/cased_L-24_H-1024_A-16.zip",
        "bert_large_en",
        "google-bert/bert-large-cased",
    ),
    Published("2020_02_20/uncased_L-2_H-128_A-2.zip", "bert_tiny_en_uncased"),
    Published("2020_02_20/uncased_L-4_H-512_A-8.zip", "bert_small_en_uncased"),
    Published("2020_02_20/uncased_L-8_H-512_A-8.zip", "bert_medium_en_uncased"),
)
_MULTILINGUAL = "google-bert/bert-base-multilingual-cased"  # 104 languages
_FILES = "config.json model.safetensors tokenizer_config.json vocab.txt"
_GOOGLE = "https://storage.googleapis.com/bert_models"


def hub_names(name: str) -> list[str]:
    """Returns a repository's name, and the name that it is also cached under.

    Google's first models had no owner; the hub redirects their names.
    """
    owned = [each.hugging_face for each in PUBLISHED if each.hugging_face]
    if f"google-bert/{name}" in owned:
        return [name, f"google-bert/{name}"]
    if name in owned:
        return [name, name.partition("/")[2]]
    return [name]


def how_to_get(name: str) -> str:
    """Returns the commands that download a model, one for each source."""
    published = _published(name)
    if published is not None:
        return f"Download it {_sources(published)}."
    if _is_preset(name):
        handle = name.removeprefix(KAGGLE)
        handle = handle if "/" in handle else f"keras/bert/keras/{handle}"
        own = f"If it is a preset of KerasHub: `{_download_by_kaggle(handle)}`."
    else:
        repository = name.removeprefix(HUGGING_FACE)
        own = f"If it is on Hugging Face: `hf download {repository}`."
    return (
        f"{own} English BERT-base can be downloaded {_sources(PUBLISHED[0])}. "
        f"For another language see {_MULTILINGUAL}."
    )


def _sources(model: Published) -> str:
    hub = f"`hf download {model.hugging_face} {_FILES}`"
    kaggle = _download_by_kaggle(f"keras/bert/keras/{model.preset}")
    folder = os.path.basename(model.zip).removesuffix(".zip")
    google = (
        f"curl -O {_GOOGLE}/{model.zip} && unzip -j {folder}.zip -d {folder}"
    )
    sources = [
        f"from Hugging Face, {hub} (then give {model.hugging_face})",
        f"from Kaggle, `{kaggle}` (then give {model.preset})",
        f"from Google, `{google}` (then give {folder})",
    ]
    return "; or ".join(sources if model.hugging_face else sources[1:])


def _download_by_kaggle(handle: str) -> str:
    call = f"kagglehub.model_download('{handle}')"
    return f'python -c "import kagglehub; {call}"'


def _is_preset(name: str) -> bool:
    """Returns whether a name is rather KerasHub's than Hugging Face's."""
    return (
        name.startswith(KAGGLE)
        or name.count("/") > 1
        or ("_" in name and not re.search("[/-]", name))
    )


def _published(name: str) -> Published | None:
    for scheme in SCHEMES:
        name = name.removeprefix(scheme)
    handle = re.fullmatch(r"keras/bert/keras/(\w+)(?:/[0-9]+)?", name)
    preset = handle[1] if handle else name
    for each in PUBLISHED:
        if preset == each.preset or each.hugging_face in hub_names(name):
            return each
    return None
