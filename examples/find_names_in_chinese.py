# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 在中文里寻找人名与地名 · Names in Chinese text
#
# A tagger from nothing but this notebook: sentences are built from templates,
# the test sentences from names that training has not seen. With a pretrained
# Chinese checkpoint as `init` the same lines work for real text.

# %%
import pathlib
import random
import tempfile

import bert_keras

folder = pathlib.Path(tempfile.mkdtemp())
choose = random.Random(1)

SURNAMES = "赵钱孙李周吴郑王冯陈褚卫蒋沈韩杨朱秦许何"
GIVEN = "明华强军平丽芳静伟敏勇艳杰娟涛超霞红玲玉"
PLACES = [
    "北京",
    "上海",
    "广州",
    "深圳",
    "南京",
    "杭州",
    "成都",
    "武汉",
    "西安",
    "重庆",
]
TEMPLATES = [
    "{人}昨天从{地}回来了。",
    "我听说{人}住在{地}。",
    "{地}的天气很好，{人}很高兴。",
    "{人}和{人}一起去{地}旅行。",
    "今天没有人去{地}。",
    "老师问{人}为什么迟到。",
]


def name():
    return choose.choice(SURNAMES) + "".join(
        choose.choices(GIVEN, k=choose.choice((1, 2)))
    )


def sentence(places):
    """Returns characters and their BIO tags."""
    characters, tags = [], []
    rest = choose.choice(TEMPLATES)
    while rest:
        if rest.startswith("{"):
            slot, rest = rest[1], rest[3:]
            entity, tag = (
                (name(), "PER")
                if slot == "人"
                else (choose.choice(places), "LOC")
            )
            tags += [f"B-{tag}"] + [f"I-{tag}"] * (len(entity) - 1)
            characters += entity
        else:
            characters.append(rest[0])
            tags.append("O")
            rest = rest[1:]
    return characters, tags


# %% [markdown]
# ## 数据 · The files
# CoNLL: one character and its tag per line, an empty line between sentences.


# %%
def write(path, count, places):
    lines = []
    for _ in range(count):
        characters, tags = sentence(places)
        lines += [f"{c} {t}" for c, t in zip(characters, tags, strict=True)] + [
            ""
        ]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


write(folder / "train.conll", 600, PLACES[:7])
write(folder / "dev.conll", 100, PLACES[7:])  # places that training lacks
# Raw text, without labels, has them all.
text = "\n".join("".join(sentence(PLACES)[0]) for _ in range(500))
(folder / "corpus.txt").write_text(text, encoding="utf-8")
print((folder / "dev.conll").read_text(encoding="utf-8")[:40])

# %% [markdown]
# ## 词表与编码器 · A vocabulary and a random encoder

# %%
bert_keras.prepare(
    folder / "corpus.txt",
    output=folder / "records",
    vocab_size=90,
    seq_length=32,
    sentence_objective="none",
)
bert_keras.pretrain(
    folder / "records",
    output=folder / "base",
    model="tiny",
    steps=200,
    batch_size=32,
    learning_rate=1e-3,
)

# %% [markdown]
# ## 训练 · The tagger

# %%
tagger = bert_keras.finetune(
    folder / "base",
    folder / "train.conll",
    folder / "dev.conll",
    task="tagging",
    output=folder / "tagger",
    epochs=6,
    batch_size=16,
    learning_rate=1e-3,
    seq_length=32,
)
metrics = bert_keras.evaluate(folder / "tagger", folder / "dev.conll")
print(metrics)

# %%
text = "李明华昨天从上海回来了。"
answer = tagger.predict([text])[0]
for entity in zip(answer["type"], answer["text"], answer["score"], strict=True):
    print(*entity)

# %%
assert metrics["f1"] > 0.5
