"""Texts that the page offers, for English and for Chinese models."""

from collections.abc import Mapping
from typing import NamedTuple

Texts = Mapping[str, str]  # by text column


class Examples(NamedTuple):
    """Examples of one text and of a pair; a task uses those it can read."""

    english: tuple[Texts, ...]
    chinese: tuple[Texts, ...]


TEXTS = Examples(
    (
        {"text": "A warm, funny film that I would happily watch again."},
        {"text": "Two hours of noise, and not one line worth remembering."},
        {"text": "Shares of the carmaker fell after it cut its forecast."},
        {
            "text": "A man is tuning his guitar.",
            "text_pair": "Somebody is playing an instrument.",
        },
        {
            "text": "The shop closes at six.",
            "text_pair": "The shop is open all night.",
        },
    ),
    (
        {"text": "这部电影温暖又有趣，我还想再看一遍。"},
        {"text": "酒店房间太小，服务也很慢，不会再来了。"},
        {"text": "汽车厂商下调预期，股价应声下跌。"},
        {"text": "一个男人在调吉他。", "text_pair": "有人在摆弄乐器。"},
        {"text": "商店六点关门。", "text_pair": "商店通宵营业。"},
    ),
)

NEXT = Examples(
    (
        {
            "text": "It rained all night.",
            "text_pair": "In the morning the streets were wet.",
        },
        {
            "text": "It rained all night.",
            "text_pair": "The parliament is elected for five years.",
        },
    ),
    (
        {"text": "师徒四人历经艰险。", "text_pair": "他们终于取得真经。"},
        {"text": "师徒四人历经艰险。", "text_pair": "诸葛亮火烧赤壁。"},
    ),
)

MATCHES = Examples(
    (
        {
            "text": "Where do penguins live?",
            "text_pair": "Penguins breed on the coasts of Antarctica.",
        },
        {
            "text": "Where do penguins live?",
            "text_pair": "The parliament is elected for five years.",
        },
    ),
    (
        {"text": "长城有多长？", "text_pair": "长城全长两万多公里。"},
        {"text": "长城有多长？", "text_pair": "熊猫以竹子为食。"},
    ),
)

LINES = Examples(
    (
        {
            "text": "A man is tuning his guitar.\n"
            "Somebody is playing an instrument.\n"
            "The shop closes at six."
        },
        {
            "text": "We sat on the bank of the river.\n"
            "The bank lends money.\n"
            "They fished from the other bank."
        },
    ),
    (
        {"text": "一个男人在调吉他。\n有人在摆弄乐器。\n商店六点关门。"},
        {"text": "我喜欢吃苹果\n苹果和华为哪个牌子好\n苹果又红又甜"},
    ),
)

ENTITIES = Examples(
    (
        {"text": "Ada Lovelace met Charles Babbage in London in 1833."},
        {"text": "In May the BBC sent Maria Lopez from Madrid to Nairobi."},
    ),
    (
        {"text": "李娜在武汉长大，后来到北京大学读书。"},
        {"text": "王小明和张伟上周从上海飞往新加坡。"},
    ),
)

REQUESTS = Examples(
    (
        {"text": "book a table for four in brooklyn tomorrow at seven"},
        {"text": "play some blues by nina simone"},
    ),
    (
        {"text": "帮我订一张明天去杭州的火车票"},
        {"text": "放一首邓丽君的歌"},
    ),
)

QUESTIONS = Examples(
    (
        {
            "question": "When did the lighthouse open?\nWho designed it?",
            "context": "The lighthouse on the north cape was designed by the "
            "engineer Clara Berg. Work began in 1871 and took five years; the "
            "lamp was lit for the first time on 3 May 1876. Since 1994 it has "
            "been a museum, and on clear days visitors can see the island "
            "twenty miles away.",
        },
    ),
    (
        {
            "question": "灯塔是哪一年建成的？\n谁设计了灯塔？",
            "context": "北角灯塔由工程师林海设计，1871年动工，历时五年，"
            "于1876年5月3日建成并首次点亮。1994年灯塔改为博物馆，天气晴朗时"
            "游客可以看到三十公里外的小岛。",
        },
    ),
)

ARTICLES = Examples(
    (
        {
            "text": "The old harbour of Nordby will close at the end of the "
            "year. It was built in 1902 for the herring fleet. For decades "
            "more than a hundred boats landed their fish there. Today only "
            "four are left, and repairs of the quay would cost nine million. "
            "The council therefore voted to fill the basin and to build a "
            "park with a view of the sea. Many residents welcome the plan. "
            "The fishermen want to move to the new port in the south."
        },
    ),
    (
        {
            "text": "老渔港将在今年年底关闭。这座港口建于1902年，当时供捕捞"
            "鲱鱼的船队使用。几十年间，每天有一百多条渔船在这里卸货。如今只"
            "剩下四条船，而修缮码头需要九百万元。因此镇议会决定填平港池，建"
            "一座面向大海的公园。许多居民欢迎这个计划。渔民们希望搬到南边的"
            "新港。"
        },
    ),
)

BEGINNINGS = Examples(
    (
        {"text": "The old man sat down and"},
        {"text": "It was a cold night, and the"},
    ),
    (
        {"text": "他打开门，看见"},
        {"text": "今天天气很好，我们"},
    ),
)

CHOICES = Examples(
    (
        {
            "context": "The ferry leaves at nine. Anna overslept and reached "
            "the harbour an hour later.",
            "question": "Did Anna take the ferry at nine?",
            "choice_a": "Yes, she was early.",
            "choice_b": "No, it had already left.",
        },
    ),
    (
        {
            "context": "渡轮九点开。小安睡过了头，一个小时后才到码头。",
            "question": "小安赶上九点的渡轮了吗？",
            "choice_a": "赶上了，她到得很早。",
            "choice_b": "没有，船已经开走了。",
        },
    ),
)

MASKS = Examples(
    (
        {"text": "The old man sat down on the [MASK] and opened his [MASK]."},
        {"text": "She closed the [MASK] because it was cold outside."},
    ),
    (
        {"text": "他打开[MASK]，走了出去。"},
        {"text": "今天天气很[MASK]，我们去公园吧。"},
    ),
)
