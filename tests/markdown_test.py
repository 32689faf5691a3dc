"""What counts as a block of a page, and what a block must print."""

import os

from absl.testing import absltest

from tests import markdown

PAGE = """# A page

```python
count = 2
```

```sh
echo "a  b"; cat data.txt
```

```text
a b
...three
```

- a list

  ```python
  print(count + 1)
  if count:
      print("more")
  ```

  ```text
  3
  more
  ```

```sh not-run
exit 1
```

```json
{
```
"""


class MarkdownTest(absltest.TestCase):
    def setUp(self):
        super().setUp()
        self.folder = self.create_tempdir().full_path
        with open(os.path.join(self.folder, "data.txt"), "w") as file:
            file.write("one two three\n")

    def run_page(self, page, **keywords):
        path = self.create_tempfile(content=page).full_path
        return markdown.run(path, self.folder, **keywords)

    def test_blocks_share_names_and_folder(self):
        self.assertEqual(self.run_page(PAGE), 3)

    def test_another_output_fails_at_the_line_of_its_block(self):
        for old, new, line in (("a b\n", "b\n", 8), ("  3\n", "  4\n", 19)):
            with self.assertRaisesRegex(AssertionError, rf":{line} printed"):
                self.run_page(PAGE.replace(old, new))

    def test_a_command_that_fails_and_code_that_raises_are_failures(self):
        with self.assertRaisesRegex(AssertionError, "no_such_command"):
            self.run_page("```sh\nno_such_command | cat\n```\n")
        with self.assertRaises(ZeroDivisionError):
            self.run_page("```python\n1 / 0\n```\n")

    def test_a_replacement_must_occur_in_the_page(self):
        page = PAGE.replace("  3\n", "  8\n")
        self.assertEqual(self.run_page(page, replace={"= 2": "= 7"}), 3)
        with self.assertRaisesRegex(AssertionError, "not in a block"):
            self.run_page(PAGE, replace={"exit 1": "exit 0"})


if __name__ == "__main__":
    absltest.main()
