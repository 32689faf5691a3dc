"""The page in Chromium: each task's view, hostile text, keyboard, layout.

It needs the package playwright and a chromium, and is skipped without them.
"""

import os
import re

import pytest
from absl.testing import absltest, parameterized

from bert_keras import playground
from tests import browsers
from tests.bert_keras.playground import pages

HOSTILE = (
    "<img src=x onerror=alert(1)><script>alert(2)</script></textarea> 😀 "
    "\u202egood film\u202c <b>old</b> \ud83d {{1}} &amp;"
)


def _contrast(one, other):
    """Contrast of two colors #rrggbb (WCAG 2.1, 1.4.3)."""

    def luminance(color):
        parts = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        red, green, blue = (
            part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4
            for part in parts
        )
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


class ColorsTest(parameterized.TestCase):
    """Needs no browser."""

    @parameterized.parameters(0, 1)
    def test_text_has_enough_contrast(self, dark):
        folder = os.path.dirname(playground.__file__)
        with open(os.path.join(folder, "page.html"), encoding="utf-8") as file:
            page = file.read()
        colors = {}
        for block in re.findall(r":root \{(.*?)\n *\}", page, re.S)[: dark + 1]:
            colors |= re.findall(r"--([\w-]+): (#\w{6});", block)
        pairs = [
            *((ink, ground) for ink in ("ink", "soft", "accent")
              for ground in ("paper", "ground")),
            ("on-accent", "accent"), ("alarm", "alarm-ground"),
            ("ink", "tint-6"),
            *((f"ink-{i}", f"tint-{i}") for i in range(8)),
            *(("ink", f"tint-{i}") for i in range(8)),
        ]  # fmt: skip
        for ink, ground in pairs:
            self.assertGreaterEqual(
                _contrast(colors[ink], colors[ground]), 4.5, (ink, ground)
            )
        for edge in ("edge", "accent"):  # of controls: 1.4.11
            self.assertGreaterEqual(
                _contrast(colors[edge], colors["paper"]), 3, edge
            )


@pytest.mark.slow
class BrowserTest(parameterized.TestCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.browser = browsers.launch(cls)

    def open(self, case, **settings):
        """The page of a case; what it logs and requests is in self.seen."""
        server = self.enter_context(pages.serving(case))
        self.server = server
        context = self.browser.new_context(**settings)
        self.addCleanup(context.close)
        page = context.new_page()
        page.set_default_timeout(120_000)  # on a busy machine
        self.seen = []
        for event in ("console", "pageerror", "dialog", "popup"):
            page.on(event, lambda each: self.seen.append(str(each)))
        page.on("request", lambda each: self._note(each.url, server.url))
        page.goto(server.url)
        page.wait_for_selector("#text-0")
        return page

    def _note(self, url, own):
        if not url.startswith((own, "data:")):
            self.seen.append(url)

    def tearDown(self):
        super().tearDown()
        self.assertEmpty(getattr(self, "seen", []))

    def ask(self, page, texts):
        """Fills the fields, answers by the keyboard; what the page knows."""
        columns = self.server.session.task.text_columns
        for index, column in enumerate(columns):
            page.evaluate(
                "([id, text]) => { document.getElementById(id).value = text; }",
                [f"text-{index}", texts[column]],
            )
        with page.expect_response("**/answer") as info:
            page.keyboard.press("Control+Enter")
        # Not wait_for_function: the page's policy forbids its eval.
        page.wait_for_selector("#answer[aria-busy=false]")
        return info.value.json()

    def drawn(self, page):
        """The kinds of blocks that are drawn, in their order."""
        return page.eval_on_selector_all(
            "[data-block]", "all => all.map(each => each.dataset.block)"
        )

    @parameterized.parameters(*pages.CASES)
    def test_each_task_has_its_view(self, case):
        page = self.open(case)
        session = pages.session(case)
        self.assertIn(session.name, page.title())
        reply = self.ask(page, pages.texts(case))
        self.assertEqual(
            self.drawn(page), [block["block"] for block in reply["blocks"]]
        )
        self.assertEqual(page.locator("#error").inner_text(), "")
        self.assertRegex(
            page.locator("#status").inner_text(), r"Answered in [\d.]+ ms"
        )
        pieces = page.locator(".token bdi").all_text_contents()
        self.assertEqual(
            pieces,
            [p["token"] for row in reply["wordpieces"]["rows"] for p in row],
        )
        self.assertEqual(
            page.locator("#json").get_attribute("open") is not None,
            case == "users",
        )

    @parameterized.parameters("tagging", "intent_slots", "masked_lm")
    def test_marks_are_the_spans(self, case):
        page = self.open(case)
        reply = self.ask(page, pages.texts(case))
        (answer,) = reply["answers"]
        marks = page.eval_on_selector_all(
            "mark", "all => all.map(each => each.firstChild.data)"
        )
        self.assertNotEmpty(marks)
        self.assertEqual(
            marks, answer["token"][:2] if "token" in answer else answer["text"]
        )
        if "type" in answer:
            self.assertEqual(
                page.locator("mark small").all_text_contents(), answer["type"]
            )

    def test_an_answer_is_shown_in_the_context_and_others_on_a_click(self):
        page = self.open("question_answering")
        texts = pages.texts("question_answering")
        texts["question"] = "is the film good ?"
        (answer,) = self.ask(page, texts)["answers"]
        buttons = page.locator("[data-block=bars] button")
        texts_shown = buttons.all_text_contents()
        shown = texts_shown[: len(answer["answers"])]
        self.assertEqual(shown, answer["answers"])
        for index in (2, 0, 1):
            buttons.nth(index).click()
            mark = page.eval_on_selector("mark", "e => e.firstChild.data")
            self.assertEqual(mark, answer["answers"][index])
            self.assertEqual(
                page.locator("[aria-pressed=true]").all_text_contents(),
                [answer["answers"][index]],
            )

    def test_overlapping_spans_lose_no_text(self):
        page = self.open("question_answering")
        self.ask(page, pages.texts("question_answering"))
        for index in (1, 2, 3):
            for each in page.locator("[data-block=bars]").all():
                each.locator("button").nth(index).click()
            text = page.locator(".text").evaluate(
                "e => [...e.childNodes].map(n => n.data ?? n.firstChild.data)"
                ".join('')"
            )
            self.assertEqual(text, pages.TEXTS["context"])

    @parameterized.parameters(*pages.CASES)
    def test_hostile_text_makes_no_element(self, case):
        page = self.open(case)
        before = self._dangerous(page)
        texts = {
            column: f"[MASK] {HOSTILE} {text}".replace("\n", " ")
            for column, text in pages.texts(case).items()
        }
        self.ask(page, texts)
        self.assertGreater(page.locator("[data-block]").count(), 0)
        page.locator("#json summary").click()
        self.assertEqual(self._dangerous(page), before)

    def _dangerous(self, page):
        return page.locator("img, script, b, iframe, svg, a, object").count()

    def test_hostile_labels_are_text(self):
        page = self.open("hostile")
        before = self._dangerous(page)
        self.ask(page, {"text": "a good film"})
        self.assertEqual(self._dangerous(page), before)
        names = page.locator("[data-block=bars] .name").all_text_contents()
        self.assertCountEqual(names, pages.HOSTILE_LABELS)

    def test_the_policy_stops_a_script_that_would_get_in(self):
        page = self.open("classification")
        blocked = page.evaluate(
            """() => {
              try { document.body.innerHTML = "<b>x</b>"; return false; }
              catch { return true; }
            }"""
        )
        self.assertTrue(blocked)
        self.seen.clear()  # the browser logs it

    def test_an_example_is_answered_by_a_click(self):
        page = self.open("pair")
        with page.expect_response("**/answer"):
            page.locator("#examples button").first.click()
        page.wait_for_selector("[data-block=headline]")
        example = pages.session("pair").examples[0]
        for index, column in enumerate(("text", "text_pair")):
            self.assertEqual(
                page.locator(f"#text-{index}").input_value(), example[column]
            )

    def test_the_keyboard_is_enough(self):
        page = self.open("classification")
        self.assertEqual(page.evaluate("document.activeElement.id"), "text-0")
        page.keyboard.type("a good film")
        with page.expect_response("**/answer"):
            page.keyboard.press("Control+Enter")
        page.wait_for_selector("[data-block=headline]")
        self.assertEqual(page.evaluate("document.activeElement.id"), "text-0")
        page.keyboard.press("Tab")
        self.assertEqual(page.evaluate("document.activeElement.type"), "submit")
        with page.expect_response("**/answer"):
            page.keyboard.press("Enter")
        focused = []
        for _ in range(8):
            page.keyboard.press("Tab")
            focused.append(page.evaluate("document.activeElement.innerText"))
        self.assertIn("JSON", focused)
        self.assertIn(
            pages.session("classification").examples[0]["text"], focused
        )

    def test_a_mask_is_inserted_at_the_cursor(self):
        page = self.open("masked_lm")
        page.keyboard.type("a film")
        for _ in "film":
            page.keyboard.press("ArrowLeft")
        page.locator("#insert").click()
        self.assertEqual(page.locator("#text-0").input_value(), "a [MASK]film")

    def test_errors_are_said_and_leave_the_answer(self):
        page = self.open("classification")
        self.ask(page, {"text": "a good film"})
        self.ask(page, {"text": " "})
        self.assertEqual(
            page.locator("[role=alert]").inner_text(),
            "Expected a text; write one first.",
        )
        self.assertEqual(page.locator("[data-block=headline]").count(), 1)
        self.ask(page, {"text": "a" * 100_001})
        self.assertIn("100,000", page.locator("[role=alert]").inner_text())
        self.ask(page, {"text": "a film"})
        self.assertEqual(page.locator("[role=alert]").inner_text(), "")
        page.route("**/answer", lambda route: route.abort())
        page.locator("[type=submit]").click()
        page.wait_for_selector("[role=alert]:not(:empty)")
        self.assertIn(
            "does not answer", page.locator("[role=alert]").inner_text()
        )
        self.seen.clear()  # the browser logs replies with an error

    def test_only_the_latest_answer_is_shown(self):
        page = self.open("classification")
        held = []

        def hold(route):
            held.append(route)

        page.route("**/answer", hold)
        for text in ("a good film", "the old dull plot"):
            page.locator("#text-0").fill(text)
            page.keyboard.press("Control+Enter")
        page.wait_for_timeout(100)
        first, second = held
        second.continue_()
        page.wait_for_selector("[data-block=headline]")
        first.continue_()
        page.wait_for_timeout(300)
        pieces = page.locator(".token bdi").all_text_contents()
        self.assertIn("dull", pieces)

    @parameterized.parameters(*pages.CASES)
    def test_the_page_is_as_wide_as_the_window(self, case):
        page = self.open(case)
        texts = {
            column: f"{text} {'a' * 300}"
            for column, text in pages.texts(case).items()
        }
        self.ask(page, texts)
        for width in (360, 1400):
            page.set_viewport_size({"width": width, "height": 800})
            right = page.evaluate(
                """() => Math.max(document.scrollingElement.scrollWidth,
                     ...[...document.querySelectorAll(".sheet *")]
                       .filter(e => !e.closest("#examples"))
                       .map(e => e.getBoundingClientRect().right))"""
            )
            self.assertLessEqual(right, width)

    def test_controls_have_names(self):
        page = self.open("question_answering")
        self.ask(page, pages.texts("question_answering"))
        unnamed = page.evaluate(
            """() => [...document.querySelectorAll(
                 "textarea, button:not([hidden]), summary")]
               .filter(e => !(e.labels?.[0] ?? e).textContent.trim())
               .map(e => e.outerHTML)"""
        )
        self.assertEmpty(unnamed)


if __name__ == "__main__":
    absltest.main()
