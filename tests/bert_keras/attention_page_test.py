"""The page of an attention: its numbers, and the page in Chromium.

The browser needs the package playwright and a chromium, and is skipped without.
"""

import base64
import json
import re

import numpy as np
import pytest
from absl.testing import absltest, parameterized

from bert_keras import attention_page, errors, self_attention
from tests import browsers
from tests.bert_keras.self_attention_test import TEXT, TOKENS, make
from tests.trainers.mains import write

HOSTILE = "</script><script>alert(1)</script>"


def random_attention(count, **changes):
    """An attention of `count` tokens in 2 layers of 3 heads."""
    weights = np.random.default_rng(1).random((2, 3, count, count))
    weights /= weights.sum(axis=-1, keepdims=True)
    values = {
        "tokens": tuple(f"t{number}" for number in range(count)),
        "segments": (0,) * count,
        "weights": weights.astype(np.float32),
        "entropy": np.full((2, 3), 0.5),
        "unscaled_entropy": np.full((2, 3), 0.25),
        "head_width": 8,
        "masks": (),
        "has_masked_lm": False,
    }
    return self_attention.SelfAttention(**(values | changes))


def data_of(page):
    (text,) = re.findall('<script type="application/json"[^>]*>(.*?)</', page)
    return json.loads(text)


class PageTest(absltest.TestCase):
    def test_it_has_the_numbers_of_the_attention(self):
        found = self_attention.self_attention(make(), TEXT)
        data = data_of(attention_page.render(found, title="base"))
        self.assertEqual(data["tokens"], list(TOKENS))
        self.assertEqual((data["layers"], data["heads"]), (2, 2))
        numbers = np.frombuffer(base64.b64decode(data["weights"]), "<u2")
        np.testing.assert_allclose(
            numbers.reshape(2, 2, 8, 8) / 65535, found.weights, atol=1e-5
        )
        np.testing.assert_allclose(data["entropy"], found.entropy, atol=1e-4)
        self.assertEqual(data["masks"][0]["position"], 5)

    def test_it_loads_nothing(self):
        page = attention_page.render(random_attention(5), title="x")
        self.assertNotRegex(page, r"(?i)https?:|//\w|@import|url\(")
        self.assertIn("default-src 'none'", page)

    def test_text_cannot_end_the_data(self):
        tokens = (HOSTILE, "<!--", "b")
        found = random_attention(3, tokens=tokens)
        page = attention_page.render(found, title=HOSTILE)
        self.assertNotIn(HOSTILE, page)
        self.assertEqual(data_of(page)["tokens"], list(tokens))

    def test_the_first_tokens_of_a_long_text_are_shown(self):
        found = random_attention(200)
        data = data_of(attention_page.render(found, title="x"))
        self.assertLen(data["tokens"], 128)
        self.assertEqual(data["count"], 200)
        numbers = np.frombuffer(base64.b64decode(data["weights"]), "<u2")
        np.testing.assert_allclose(
            numbers.reshape(2, 3, 128, 128) / 65535,
            found.weights[:, :, :128, :128],
            atol=1e-5,
        )

    def test_a_file_of_another_program_is_kept(self):
        path = f"{self.create_tempdir().full_path}/page.html"
        attention_page.check_output(path)
        write(path, attention_page.render(random_attention(3), title="x"))
        attention_page.check_output(path)
        write(path, "<html>mine</html>")
        with self.assertRaisesRegex(errors.InputError, "was not written by"):
            attention_page.check_output(path)
        with self.assertRaisesRegex(errors.InputError, "an .html file"):
            attention_page.check_output("page.txt")


@pytest.mark.slow
class BrowserTest(parameterized.TestCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.browser = browsers.launch(cls)

    def open(self, found, **settings):
        path = f"{self.create_tempdir().full_path}/page.html"
        write(path, attention_page.render(found, title=HOSTILE))
        context = self.browser.new_context(**settings)
        self.addCleanup(context.close)
        page = context.new_page()
        page.set_default_timeout(120_000)
        self.seen = []
        for event in ("console", "pageerror", "dialog"):
            page.on(event, lambda each: self.seen.append(str(each)))
        page.on("request", lambda each: self.seen.append(each.url))
        page.goto(f"file://{path}")
        self.seen = [each for each in self.seen if each != f"file://{path}"]
        return page

    def tearDown(self):
        super().tearDown()
        self.assertEmpty(getattr(self, "seen", []))

    def listed(self, page):
        """{token: percent} of the list of the chosen token."""
        rows = page.locator("#list tr").all()
        cells = [row.locator("td").all_inner_texts() for row in rows]
        return {cell[1]: float(cell[2].rstrip(" %")) for cell in cells}

    def expected(self, row, tokens):
        order = np.argsort(-row)[:10]
        return {
            tokens[each]: round(100 * float(row[each]), 1) for each in order
        }

    def check(self, page, row, tokens):
        found = self.listed(page)
        expected = self.expected(row, tokens)
        self.assertEqual(set(found), set(expected))
        for name, value in expected.items():
            self.assertAlmostEqual(found[name], value, delta=0.11)

    def test_clicks_and_keys_show_what_a_token_attends_to(self):
        tokens = (HOSTILE, *(f"t{number}" for number in range(11)))
        found = random_attention(12, tokens=tokens)
        page = self.open(found)
        self.assertIn(HOSTILE, page.title())
        self.check(page, found.weights[0, 0, 0], tokens)
        page.locator(".token").nth(4).click()
        self.check(page, found.weights[0, 0, 4], tokens)
        page.keyboard.press("ArrowRight")
        self.check(page, found.weights[0, 0, 5], tokens)
        page.locator("#heads button").first.focus()
        page.keyboard.press("ArrowRight")
        page.keyboard.press("ArrowDown")
        self.assertIn("Layer 2, head 2", page.inner_text("#chosen-head"))
        page.mouse.move(0, 0)
        self.check(page, found.weights[1, 1, 5], tokens)
        page.get_by_label("what attends to it").check()
        self.check(page, found.weights[1, 1, :, 5], tokens)
        page.locator(".token").nth(2).hover()
        self.check(page, found.weights[1, 1, :, 2], tokens)
        self.assertTrue(page.locator("#masks").is_hidden())

    @parameterized.parameters(("light", 1280), ("dark", 1280), ("light", 360))
    def test_long_texts_fit(self, color_scheme, width):
        found = random_attention(300)
        page = self.open(
            found,
            color_scheme=color_scheme,
            viewport={"width": width, "height": 800},
        )
        self.assertEqual(page.locator(".token").count(), 128)
        self.assertIn("the first 128 are shown", page.inner_text("#about"))
        rest = 100 * (1 - found.weights[0, 0, 0, :128].sum())
        self.assertAlmostEqual(
            self.listed(page)["172 tokens that are not shown"], rest, delta=0.2
        )
        self.assertLessEqual(
            page.evaluate("document.documentElement.scrollWidth"), width
        )

    def test_predictions_of_layers_are_shown(self):
        page = self.open(self_attention.self_attention(make(), TEXT))
        rows = page.locator("#masks tr").all_inner_texts()
        self.assertLen(rows, 4)
        self.assertIn("token 6", rows[0])


if __name__ == "__main__":
    absltest.main()
