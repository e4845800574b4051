"""The report's words in Chinese: labels, names of stages and reasons, and the sentences of checks.

A key is the English text; ``{name}`` stands for what is filled in, on both sides alike. What has no entry is shown in
English in both languages.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from typing import Any

_HOLE = re.compile(r"(?P<before>[\u4e00-\u9fff]?)\{(?P<name>\w+)\}(?=(?P<after>[\u4e00-\u9fff]?))")
_LATIN = re.compile(r"[0-9A-Za-z]")

LABELS = {
    "auto": "自动",
    "light": "浅色",
    "dark": "深色",
    "Report of glm-data; finished stages:": "glm-data 报告；已完成的阶段：",
    "Documents": "文档",
    "Filtering": "过滤",
    "Duplicates": "重复",
    "Evaluation items": "评测题",
    "Tokens": "词元",
    "Instruction data (MIP)": "指令数据（MIP）",
    "Packed rows": "打包的行",
    "Training": "训练",
    "What the model fills in": "模型的填空",
    "Time and memory": "时间与内存",
    "Settings": "设置",
    "Every check with its sentence": "每项检查及其说明",
    "holds": "成立",
    "failed": "未通过",
    "open": "未完成",
    "Not finished; shards done: {shards}.": "未完成；已完成的分片：{shards}。",
    "All {count} checks hold.": "{count} 项检查全部成立。",
    "{failed} of {count} checks failed.": "{count} 项检查中有 {failed} 项未通过。",
    "Not finished: {stages}. Run the same command again to go on.": "未完成：{stages}。再次运行同一命令即可继续。",
    "records read": "读入的记录",
    "documents left": "篇文档留下",
    "rows packed": "行已打包",
    "last loss, nats a token": "最终损失（奈特/词元）",
    # documents
    "Stage": "阶段",
    "Read": "读入",
    "Kept": "保留",
    "Dropped": "丢弃",
    "Unreadable": "无法读取",
    "Text read": "读入文本",
    "Text kept": "保留文本",
    "Dropped by {stage}, of {records} read": "被{stage}丢弃（共读入 {records} 条）",
    "Unreadable in {stage}": "{stage}无法读取",
    "By source": "按来源",
    "By language": "按语言",
    "Last loss by language": "按语言的最终损失",
    "Last loss by source": "按来源的最终损失",
    "Source": "来源",
    "Language": "语言",
    "After {stage}": "{stage}之后",
    "Left": "留下",
    "Packed": "已打包",
    "Epochs": "轮数",
    "Share": "占比",
    "Wanted": "目标",
    "Got": "实得",
    "and {count} smaller sources, in report.json.": "另有 {count} 个较小的来源，见 report.json。",
    "Documents after filter": "过滤后的文档",
    "Text after filter": "过滤后的文本",
    "Bytes a token": "每词元字节数",
    # filtering
    "Dropped by first reason": "按首个原因丢弃",
    "Documents changed by cleaning": "清洗改动的文档",
    "Personal data replaced": "已替换的个人信息",
    "Dropped by language": "按语言统计的丢弃",
    "Dropped by source": "按来源统计的丢弃",
    "At the border: nearly dropped, only just dropped": "边界上：险些丢弃的与刚好丢弃的",
    "Value": "测得值",
    "Bound": "界限",
    "Document": "文档",
    "kept": "保留",
    "dropped": "丢弃",
    "unreadable": "无法读取",
    # duplicates
    "documents removed": "篇文档被删除",
    "of those read": "占读入的比例",
    "By rule": "按规则",
    "By similarity of the removed document to the kept one (Jaccard)": "被删文档与保留文档的相似度（Jaccard）",
    "The largest clusters": "最大的重复簇",
    "Least similar of the removed": "被删文档的最低相似度",
    "Removed of a source (line) for kept documents of a source (column)": (
        "某来源（行）因另一来源（列）的文档而删除的篇数"
    ),
    "and {count} sources with fewer; glm-data duplicates has them all.": (
        "另有 {count} 个更少的来源；glm-data duplicates 列出全部。"
    ),
    "The least similar pairs: look here first": "最不相似的几对：请先看这里",
    "Jaccard": "Jaccard 相似度",
    "Containment": "包含度",
    "Rule": "规则",
    "Removed, and what was kept instead": "被删除的文档，以及保留的文档",
    "How they were found, in numbers": "查找过程的统计",
    "documents with a possible twin": "可能有副本的文档",
    "pairs compared exactly": "精确比较的文档对",
    "documents in the largest cluster": "最大簇的文档数",
    "minima in a band": "每段的最小值个数",
    "bands": "段数",
    "buckets": "桶数",
    "edges": "边数",
    "shingles": "片段数",
    "crowded": "拥挤的桶",
    "giant buckets": "巨型桶",
    # evaluation items
    "Benchmark": "评测集",
    "Items looked for": "查找的题目",
    "Too short or common": "过短或太常见",
    "Items found": "找到的题目",
    "In documents": "所在文档",
    "For example": "例如",
    # tokens
    "tokens": "词元",
    "bytes of text a token": "每词元的文本字节数",
    "byte pieces": "字节片段",
    "pieces": "片段",
    "vocabulary": "词表大小",
    "vocabulary is a multiple of": "词表大小是其倍数",
    "documents trained on": "篇训练文档",
    "text in {language} trained on": "训练文本（{language}）",
    "How it cuts text": "分词示例",
    # MIP
    "samples": "条样本",
    "Samples by data set": "按数据集的样本",
    "Samples by language": "按语言的样本",
    "Data sets": "数据集",
    "Data set": "数据集",
    "Rows": "行数",
    "Samples": "样本",
    "At most": "上限",
    "Weight": "权重",
    "Templates, in numbers": "模板统计",
    # pack
    "rows of {length} tokens": "行，每行 {length} 个词元",
    "filled": "填充率",
    "documents": "篇文档",
    "Where the {places} places of the rows go": "各行共 {places} 个位置的用途",
    "Kind": "类型",
    "Places": "位置",
    "Pieces": "片段",
    "Loss tokens": "计损失的词元",
    "[gMASK] text": "[gMASK] 文本",
    "[MASK] text": "[MASK] 文本",
    "[sMASK] text": "[sMASK] 文本",
    "MIP": "MIP",
    "padding": "补齐",
    "Wanted and got": "目标与实得",
    "MIP of the {what}": "MIP 占{what}",
    "packed tokens": "打包词元",
    "rows": "行",
    "targets": "目标词元",
    "of [MASK] text is masked": "[MASK] 文本的遮盖比例",
    "source {name}": "来源 {name}",
    "language {name}": "语言 {name}",
    "Lengths of [MASK] spans: counted, and the recipe's curve as dots": (
        "[MASK] 片段的长度：实测（柱）与配方曲线（点）"
    ),
    "{spans} spans in {rows} rows; {mean} tokens on average, {expected} expected. χ² = {chi} with {degrees} degrees of "
    "freedom, p = {p}.": "{rows} 行中有 {spans} 个片段；平均 {mean} 个词元，期望 {expected}。"
    "χ² = {chi}，自由度 {degrees}，p = {p}。",
    "What [gMASK] pieces leave to generate: counted, and uniform as dots": (
        "[gMASK] 待生成部分的占比：实测（柱）与均匀分布（点）"
    ),
    "Share of the piece, from the least that is asked for to all of it.": "占片段的比例，从要求的下限到全部。",
    "The shortest {kind} piece of some size, as the model reads it": "模型读到的样子：长度适中、最短的 {kind} 片段",
    "A is read both ways; B is written left to right, each span behind an <sop>; @ is the position that its first "
    "token has.": "A 部分双向可见；B 部分从左到右生成，每段以 <sop> 开头；@ 是该段首个词元的位置编号。",
    # training
    "parameters": "参数",
    "steps": "步",
    "step": "步",
    "all": "全部",
    "unigram": "一元熵",
    "passes over the rows": "遍数据",
    "held-out loss": "留出集损失",
    "unigram entropy: guessing by frequency": "一元熵：只按频率猜测",
    "Loss, nats a token": "损失（奈特/词元）",
    # cost and settings
    "Time": "用时",
    "Work of all workers": "全部进程的工作量",
    "Workers": "进程数",
    "Input": "输入",
    "Input a second": "每秒输入",
    "Output": "输出",
    "Peak memory of a process": "单进程内存峰值",
    "{stage} was resumed: {shards} of its shards came from an earlier run, so its time is not that of the whole.": (
        "{stage}是续跑的：有 {shards} 个分片来自先前的运行，因此用时不是全部用时。"
    ),
    "To do this again": "重新运行",
    "Stages": "各阶段",
    "Input files": "输入文件",
    "Output files": "输出文件",
    "Key": "键",
    "Digest of the output": "输出摘要",
    "Run with": "运行环境：",
    "Options": "选项",
    "command line": "命令行",
    "recipe": "配方",
    "default": "默认",
    "derived": "由输入得出",
}

_PERPLEXITIES = {"en": "英文", "zh": "中文", "ja": "日文", "ko": "韩文"}
NAMES = {
    "report": "报告",
    "filter": "过滤",
    "dedupe": "去重",
    "decontaminate": "去污染",
    "tokenizer": "训练分词器",
    "tokenize": "分词",
    "mip": "指令数据",
    "pack": "打包",
    "train": "训练",
    "prune": "剪枝",
    "quantize": "量化",
    "export": "导出",
    "exact": "完全相同",
    "near": "近似重复",
    "contained": "被包含",
    "nothing_left": "剪切后无剩余",
    "too_many_cuts": "剪切处过多",
    "contaminated": "含评测题",
    "malformed_json": "JSON 格式错误",
    "invalid_utf8": "UTF-8 无效",
    "wrong_type": "类型不对",
    "truncated": "被截断",
    "empty": "空",
    "language": "其他语言",
    "few_letters": "文字太少",
    "repeated_text": "重复文本",
    "repeated_text_or_code": "重复文本或代码",
    "repeated_lines": "重复行",
    "garbled": "乱码",
    "misread": "编码误读",
    "advertisement": "广告",
    "no_sentences": "没有句子",
    "no_spaces": "没有空格",
    "no_words": "没有词语",
    "no_function_words": "没有虚词",
    "short": "太短",
    "too_long": "太长",
    "blanks": "空白过多",
    "bullets": "项目符号过多",
    "digits": "数字过多",
    "ellipses": "省略号过多",
    "links": "链接过多",
    "link_list": "链接列表",
    "list": "列表",
    "headlines": "标题列表",
    "fragments": "零散片段",
    "punctuation": "标点异常",
    "symbols": "符号过多",
    "quality": "质量分低",
    # rules of other profiles
    "absurdly_long": "过长",
    "long_words": "单词过长",
    "cut_off": "句子不完整",
    "banned": "含禁用标记",
    "sentences": "句子太少",
    "source": "来源被拒",
    "url": "网址被拒",
    "language_score": "语种得分低",
    "language_score_en": "语种得分低（英文）",
    "perplexity": "困惑度过高",
    **{f"perplexity_{code}": f"困惑度过高（{name}）" for code, name in _PERPLEXITIES.items()},
    "short_lines": "短行过多",
    "mean_line": "平均行长异常",
    "longest_line": "最长行异常",
    "han": "汉字太少",
    "chinese_characters": "汉字太少",
    "text_density": "文字密度低",
    "listed_words": "词表用词过多",
    "flagged_words": "标记词过多",
    "flagged_words_en": "标记词过多（英文）",
    "alphanumeric": "字母数字比例异常",
    "alphanumeric_en": "字母数字比例异常（英文）",
    "special_characters": "特殊字符过多",
    "special_characters_en": "特殊字符过多（英文）",
    "character_repetition": "字符片段重复",
    "character_repetition_en": "字符片段重复（英文）",
    "word_repetition": "词组重复",
    "word_repetition_en": "词组重复（英文）",
    "stop_words": "停用词太少",
    "stop_words_en": "停用词太少（英文）",
    "word_count": "词数异常",
    "words_en": "词数异常（英文）",
    "word_length": "平均词长异常",
    "letters": "含字母的词太少",
    "hashes": "井号过多",
    "ellipsis_lines": "省略号结尾的行过多",
    "end_marks": "句末符号太少",
    "duplicate_lines": "重复行",
    "duplicate_line_text": "重复行的文本",
    "duplicate_paragraphs": "重复段落",
    "duplicate_paragraph_text": "重复段落的文本",
    "duplicate_characters": "重复行的字符",
    **{f"top_{size}_gram": f"最常见的 {size} 元组过多" for size in range(2, 5)},
    **{f"duplicate_{size}_grams": f"{size} 元组重复" for size in range(5, 11)},
    # cleaning, personal data, instruction data
    "mojibake": "乱码修复",
    "personal": "个人信息",
    "phone": "电话",
    "email": "邮箱",
    "title": "标题",
    "white_space": "空白",
    "newlines": "换行",
    "control": "控制字符",
    "repeats": "重复字符",
    "not_sampled": "未抽样",
    "not_applicable": "模板不适用",
    "empty_target": "答案为空",
    "over_limit": "超出限制",
    "error": "出错",
}

SENTENCES = {
    "{stage}: {records} records read = {kept} kept + {dropped} dropped + {unreadable} unreadable.": (
        "{stage}：读入 {records} 条 = 保留 {kept} + 丢弃 {dropped} + 无法读取 {unreadable}。"
    ),
    "{stage}: {records} records read but {kept} kept + {dropped} dropped + {unreadable} unreadable.": (
        "{stage}：读入 {records} 条，但保留 {kept} + 丢弃 {dropped} + 无法读取 {unreadable}，对不上。"
    ),
    "{count} documents kept by {earlier}, all read by {later}.": ("{earlier}保留的 {count} 篇文档，{later}全部读到。"),
    "{count} documents kept by {earlier}, but {read} read by {later}.": (
        "{earlier}保留了 {count} 篇文档，{later}却读到 {read} 篇。"
    ),
    "{bad} of {all} records ({share}) are unreadable; the limit is {limit}, worst is '{worst}': "
    "look at unreadable/, or raise --max-bad-fraction with --overwrite.": (
        "{all} 条记录中有 {bad} 条（{share}）无法读取，上限 {limit}；“{worst}”最多：请查看 unreadable/，"
        "或以 --overwrite 调高 --max-bad-fraction。"
    ),
    "{bad} of {all} records ({share}) are unreadable; the limit is {limit}, "
    "or raise --max-bad-fraction with --overwrite.": (
        "{all} 条记录中有 {bad} 条（{share}）无法读取，上限 {limit}；可以 --overwrite 调高 --max-bad-fraction。"
    ),
    "{bad} of {all} records ({share}) are unreadable; the limit is {limit}.": (
        "{all} 条记录中有 {bad} 条（{share}）无法读取；上限 {limit}。"
    ),
    "{bad} of {all} ({share}) renders failed; see refused/; {limit} are allowed.": (
        "{all} 次渲染中有 {bad} 次（{share}）失败，见 refused/；允许 {limit}。"
    ),
    "'{source}' lost most, {share} of its {all} documents; the limit is {limit}.": (
        "“{source}”损失最多，{all} 篇文档中的 {share}；上限 {limit}。"
    ),
    "source '{source}' loses {share} of its documents (limit {limit}).": (
        "来源“{source}”失去 {share} 的文档（上限 {limit}）。"
    ),
    "{share} of source '{source}' was cut or dropped (limit {limit}).": (
        "来源“{source}”有 {share} 被剪切或丢弃（上限 {limit}）。"
    ),
    "'{benchmark}' was found in {share} of the documents (limit {limit}).": (
        "{share} 的文档里有“{benchmark}”的题目（上限 {limit}）。"
    ),
    "no benchmark was found (limit {limit}).": "没有找到任何评测题（上限 {limit}）。",
    "no source is large enough to judge (limit {limit}).": "没有大到可以判断的来源（上限 {limit}）。",
    "MIP is {got} of the packed tokens, {wanted} wanted.": "MIP 占打包词元的 {got}，目标 {wanted}。",
    "MIP is {got} of the rows, {wanted} wanted.": "MIP 占全部行的 {got}，目标 {wanted}。",
    "MIP is {got} of the targets, {wanted} wanted.": "MIP 占目标词元的 {got}，目标 {wanted}。",
    "'{name}' is {got} of the text tokens, {wanted} wanted.": "“{name}”占文本词元的 {got}，目标 {wanted}。",
    "last training loss {loss} nats a token; guessing by frequency alone costs {entropy}.": (
        "最终训练损失每词元 {loss} 奈特；只按频率猜测为 {entropy}。"
    ),
    "the worst matrix, {name}, is off by {error}; all of them by {mean}.": (
        "误差最大的矩阵 {name} 偏差 {error}；全部平均 {mean}。"
    ),
    "{share} of the layers' weights are zero; the held-out loss is {after} nats a token, {before} before.": (
        "各层权重有 {share} 为零；留出集损失每词元 {after} 奈特，先前 {before}。"
    ),
    "{got} targets exported, {wanted} in the pack.": "导出 {got} 个目标词元，包里有 {wanted} 个。",
}


def translate(sentence: str) -> str | None:
    """A check's sentence in Chinese, or None if it is not known."""
    for pattern, chinese in _patterns():
        if found := pattern.fullmatch(sentence):
            values = {name: NAMES.get(value, value) for name, value in found.groupdict().items()}
            return with_gaps(chinese, values).format(**values)
    return None


def with_gaps(chinese: str, values: Mapping[str, Any]) -> str:
    """A template with a blank between its Han and the Latin letters or digits that ``values`` bring beside them, as
    printers set it: ``被 dc 丢弃``, but ``被过滤丢弃``."""

    def place(found: re.Match[str]) -> str:
        value = str(values[found["name"]])
        before = " " if found["before"] and _LATIN.match(value[:1]) else ""
        after = " " if found["after"] and _LATIN.match(value[-1:]) else ""
        return f"{found['before']}{before}{{{found['name']}}}{after}"

    return _HOLE.sub(place, chinese)


@functools.cache
def _patterns() -> tuple[tuple[re.Pattern[str], str], ...]:
    return tuple((_pattern(english), chinese) for english, chinese in SENTENCES.items())


def _pattern(english: str) -> re.Pattern[str]:
    parts = re.split(r"\{(\w+)\}", english)
    texts = [f"(?P<{part}>.+?)" if at % 2 else re.escape(part) for at, part in enumerate(parts)]
    return re.compile("".join(texts), re.DOTALL)
