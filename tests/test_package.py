"""What a newcomer sees of the package."""

import pydoc
import re

import kind_jax


def test_help_and_dir_list_everything_public():
    public = set(kind_jax.__all__)
    assert public <= set(dir(kind_jax))
    rows = re.findall(r"^    (\w+)  +\S", kind_jax.__doc__ or "", re.MULTILINE)
    assert sorted(rows) == sorted(public)
    page = pydoc.render_doc(kind_jax, renderer=pydoc.plaintext)
    for shown in ("open_bundle(path", "compose(bundle", "fit(config", "one_group(rows"):
        assert shown in page
