"""Documents of our own in two languages, and the ways in which a copy of one comes to look different."""

import functools
import random
import unicodedata

import opencc


def _lines(text):
    return text.split("\n")


def _words(text):
    return text.split(",")


ZH = _lines(
    """\
清晨的{place}还笼罩在薄雾里，卖{food}的摊主已经支起了炉子。
{person}推开窗，看见院子里的{tree}又长高了一截，便想起小时候爬树的事。
据说这座桥修于{number}年前，桥栏上的石狮子至今没有一只缺角。
我们沿着河岸走了{number}里路，谁也没有提回去的话。
修钟表的师傅说，机芯里少了一颗{number}毫米的螺丝，所以每天慢半刻钟。
要做好{food}，火候比配料更要紧，水开之后切不可急着揭盖。
图书馆{number}楼的角落里有一排旧期刊，翻开来还夹着当年的车票。
{person}在信里写道，{place}的冬天没有想象中那么冷，只是风大。
孩子们围着{tree}数年轮，数到第{number}圈就争执起来。
夜里下了一场雨，{place}的石板路被冲洗得发亮。
村里的广播每天傍晚播{number}分钟新闻，然后是天气和{food}的行情。
这份说明书只有{number}页，却把安装、保养和常见故障都讲清楚了。
{person}把收音机拆开又装好，最后多出来{number}个零件。
老人说种{tree}要趁春分之前，土不能太湿，根不能见光。
从{place}寄来的包裹里有一罐{food}，封口上写着日期和重量。
那年夏天停电的晚上，大家都搬了凳子到院里，听{person}讲{place}的旧事。"""
)
EN = _lines(
    """\
The ferry to {place} leaves at dawn, and {person} has never once been on time for it.
Nobody in the office could explain why the printer had counted {number} pages for a single letter.
If you want to bake {food} properly, let the dough rest for {number} minutes before you touch it again.
Behind the station stands an old {tree} whose roots have lifted the pavement by a hand's width.
{person} kept a notebook of every bird seen in {place} since the flood took the lower bridge.
The manual says to tighten all {number} screws by hand and only then to reach for the wrench.
We argued about the map until the rain settled the matter and washed the ink off it.
A jar of {food} stood on the shelf for {number} years because no one remembered who had brought it.
Every autumn the school in {place} plants one {tree} for each child who learned to swim.
The committee met {number} times, agreed on nothing, and published the minutes in full.
{person} repaired the radio with a hairpin, which still works better than the original part.
In the market they sell {food} by the handful, and the price depends on whose hand it is.
There are {number} steps from the harbour to the chapel, though the guidebook claims fewer.
Once the snow had melted, the road to {place} turned out to run beside the river after all.
The clock in the hall loses {number} seconds a day, so {person} winds it a little early.
Under the {tree} lay a letter without an address, folded so often that it would not stay open."""
)
SLOTS = {
    "zh": {
        "place": _words("青石镇,南湾,白马渡,柳林铺,云台山,西河口,旧城根,海棠湾"),
        "person": _words("陈伯,小满,林老师,阿芳,周师傅,何医生,老赵,秀英"),
        "food": _words("豆浆,米糕,桂花糖,酸菜,烧饼,腊肉,莲子羹,花生酥"),
        "tree": _words("槐树,银杏,香樟,石榴,枇杷,梧桐,桑树,柿子树"),
    },
    "en": {
        "place": _words("Harrow Quay,Millbrook,Saint Oda,Lower Fen,Castle Rise,Windle,Port Amery,Greyford"),
        "person": _words("Aunt Mabel,Mr Osei,the postman,Ingrid,old Tomas,Priya,the night nurse,Captain Bell"),
        "food": _words("rye bread,plum jam,pickled onions,ginger cake,bean stew,lemon curd,oat biscuits,dumplings"),
        "tree": _words("walnut,hornbeam,pear tree,cedar,hawthorn,lime,mulberry,rowan"),
    },
}


def write_documents(language, count, seed=0, sentences=12):
    """``count`` documents that share phrases but no more than a fifth of their shingles or so."""
    random_ = random.Random(f"{language}/{seed}")
    pool = ZH if language == "zh" else EN
    return [_write(random_, random_.sample(pool, sentences), SLOTS[language], language) for _ in range(count)]


def _write(random_, sentences, slots, language):
    filled = []
    for sentence in sentences:
        words = {name: random_.choice(choices) for name, choices in slots.items()}
        filled.append(sentence.format(number=random_.randrange(2, 90), **words))
        filled.append(f"第{random_.randrange(10**9)}号。" if language == "zh" else f"Item {random_.randrange(10**9)}.")
    return "\n".join(filled)


def full_width(text):
    return "".join(chr(ord(c) + 0xFEE0) if "!" <= c <= "~" else "\u3000" if c == " " else c for c in text)


@functools.cache
def _to_taiwan():
    return opencc.OpenCC("s2tw")


def traditional(text):
    return _to_taiwan().convert(text)


def half_width_punctuation(text):
    return unicodedata.normalize("NFKC", text).replace("。", ". ").replace("、", ", ")


def spaced(text):
    return text.replace("，", "， ").replace("的", " 的 ") if not text.isascii() else text.replace(" ", "  ")


def with_boilerplate(text):
    first, last = ("首页 > 文章", "版权所有") if not text.isascii() else ("Home > Stories", "All rights reserved")
    return f"{first}\n{text}\n{last}"


def upper(text):
    return text.upper()


def other_numbers(text):
    return "".join(str((int(c) + 3) % 10) if c.isdigit() else c for c in text)


def noisy(text):
    random_ = random.Random(text)
    return "".join(random_.choice("甲乙丙丁") if random_.random() < 0.01 else c for c in text)


PERTURBATIONS = {
    "full width": full_width,
    "traditional": traditional,
    "half-width punctuation": half_width_punctuation,
    "spaces": spaced,
    "boilerplate": with_boilerplate,
    "case": upper,
}
