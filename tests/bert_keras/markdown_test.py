"""Texts from data in Markdown, rendered by markdown-it."""

import re
import shlex

from absl.testing import absltest, parameterized
from markdown_it import MarkdownIt  # which rich needs

from bert_keras import markdown

HOSTILE = (
    *("---", "| a", "<script>alert(1)</script>", "`", "``x`", "a`", " ", "`` "),
    *("# x", "- a", "1. a", "![x](y)", "[a](javascript:x)", "*a*", "\\"),
    *("a\n\n# b", "a\r\n---\r\n", "\x00\x1b[31m", "\u202eevil", "很好"),
    *("❤️", "~~a~~", "&lt;"),
    *("<!-- x", "-->", "```\nx\n```", "a_b_c", "www.x.org", "a  b"),
)  # fmt: skip


def html(text):
    return MarkdownIt("commonmark").enable("table").render(text)


def shown(text):
    """The characters that a browser shows of HTML."""
    for entity, character in (("lt", "<"), ("gt", ">"), ("quot", '"')):
        text = text.replace(f"&{entity};", character)
    return text.replace("&amp;", "&")


class MarkdownTest(parameterized.TestCase):
    @parameterized.parameters(*HOSTILE)
    def test_a_code_span_shows_the_text_and_nothing_else(self, text):
        list_item = html(markdown.bullets([markdown.code(text), "x"]))
        match = re.fullmatch(
            r"<ul>\n<li><code>(.*)</code></li>\n<li>x</li>\n</ul>\n", list_item
        )
        self.assertIsNotNone(match, list_item)
        expected = markdown.printable(text)
        self.assertEqual(
            shown(match[1]), expected if expected.strip() else "   "
        )

    @parameterized.parameters(*HOSTILE)
    def test_an_escaped_text_is_one_heading(self, text):
        rendered = html(f"# x{markdown.escaped(text)}x")
        match = re.fullmatch(r"<h1>(.*)</h1>\n", rendered)
        self.assertIsNotNone(match, rendered)
        self.assertEqual(shown(match[1]), f"x{markdown.printable(text)}x")
        self.assertEqual(
            markdown.unescaped(markdown.escaped(text)), markdown.printable(text)
        )

    @parameterized.parameters(*HOSTILE)
    def test_a_cell_stays_a_cell(self, text):
        cell = markdown.code(text)
        rendered = html(markdown.table(("name", "value"), [(cell, "1")]))
        self.assertEqual(rendered.count("<tr>"), 2)
        self.assertEqual(rendered.count("<td>"), 2)
        self.assertIn("<td>1</td>", rendered)

    @parameterized.parameters(*HOSTILE)
    def test_a_block_of_code_ends_where_it_should(self, text):
        rendered = html(f"{markdown.code_block(text)}\n\nbehind")
        self.assertEqual(rendered.count("<pre>"), 1)
        self.assertTrue(rendered.endswith("<p>behind</p>\n"), rendered)

    def test_a_command_is_one_that_a_shell_understands(self):
        flags = {"a": "it's", "b": "x y", "c": "$HOME", "d": "", "e": 1}
        words = shlex.split(markdown.command("m", flags).replace("\\\n", " "))
        self.assertEqual(
            words[2:], ["--a=it's", "--b=x y", "--c=$HOME", "--d=", "--e=1"]
        )


if __name__ == "__main__":
    absltest.main()
