"""Texts whose sentences end where a reader ends them, with | between."""

from bert_keras.data import sentence_splitter

CASES = (
    "Mr. Smith met Dr. A. B. Jones at 5 p.m. in the U.S.|He paid $3.50.",
    "“Why?” he asked.|“Because.”|She left...|Then it rained.",
    'He said "Stop."|She stopped.|(It was late.)|“Go (now).”|Gone.',
    "Some, e.g. this one, i.e. that.|See Fig. 3 and No. 5.|No.|I do not.",
    "The U.S. Centers for Disease Control.|J. K. Rowling wrote it.",
    "Wait — what?!|Yes!|“No!” cried Tom.|The end . . . is near.|It is.",
    "1. Introduction is here.|2. Methods follow.|Pi is 3.14 or so.",
    "Apple Inc. announced it.|Jan. 5 was cold.|He came in Jan.|It rained.",
    "it was late .|he went home , e.g. by train .",
    'He said .|" Go home . "|She went .',
    "他说：“好。”|我走了。|“走吧！”|她说。|真的？！|是的……|然后呢；|好。",
    "好「是。」|他『嗯。』|《走吧！》的作者。|（对。）|此开卷第一回也．|作者云．",
    "目的 观察疗效.|方法 用了0.5.|It works well.|再看Python 3.11。|好",
    '他说："是的。"|我走了。',
    "«Bonjour.»|Il est parti.|¿Qué?|No sé.|Как дела?|Хорошо.",
)


def parse(marked):
    """Returns (text, sentences) of one of CASES."""
    sentences = marked.split("|")
    space = "" if sentence_splitter.WIDE.search(marked) else " "
    return space.join(sentences).replace("It works", " It works"), sentences
