"""State dicts of open_clip's CoCa, written down from what it prints; their numbers are those of classifier_states."""

import classifier_states
import numpy as np

BOS, EOS, LENGTH = 28, 29, 10


def coca(width=24, image_width=32, layers=(2, 2, 2), vocabulary=30, context=10, queries=5, patch=4, side=3):
    """Names and shapes; ``layers`` of the image, the text and the multimodal tower."""
    found = {
        "logit_scale": (), "text.positional_embedding": (context + 1, width), "text.text_projection": (width, width),
        "text.cls_emb": (width,), "text.token_embedding.weight": (vocabulary, width),
    }  # fmt: skip
    for i in range(layers[1]):
        found |= _block(f"text.transformer.resblocks.{i}.", width)
    found |= _norm("text.ln_final.", width) | {
        "visual.class_embedding": (image_width,),
        "visual.positional_embedding": (side * side + 1, image_width),
        "visual.proj": (width, width),
        "visual.conv1.weight": (image_width, 3, patch, patch),
    }
    found |= _norm("visual.ln_pre.", image_width)
    for i in range(layers[0]):
        found |= _block(f"visual.transformer.resblocks.{i}.", image_width)
    pool = "visual.attn_pool."
    found |= {f"{pool}query": (queries, width)}
    if image_width == width:
        found |= {f"{pool}attn.in_proj_weight": (3 * width, width)}
    else:
        found |= {f"{pool}attn.q_proj_weight": (width, width)}
        found |= {f"{pool}attn.{name}_proj_weight": (width, image_width) for name in "kv"}
    found |= {f"{pool}attn.in_proj_bias": (3 * width,)}
    found |= _linear(f"{pool}attn.out_proj.", width, width)
    found |= _norm(f"{pool}ln_q.", width) | _norm(f"{pool}ln_k.", image_width) | _norm("visual.ln_post.", width)
    found |= {"text_decoder.text_projection": (width, vocabulary)}
    for i in range(layers[2]):
        found |= _block(f"text_decoder.resblocks.{i}.", width)
    for i in range(layers[2]):
        found |= _block(f"text_decoder.cross_attn.{i}.", width) | _norm(f"text_decoder.cross_attn.{i}.ln_1_kv.", width)
    return found | _norm("text_decoder.ln_final.", width)


def _block(begin, width):
    found = _norm(f"{begin}ln_1.", width)
    found |= {f"{begin}attn.in_proj_weight": (3 * width, width), f"{begin}attn.in_proj_bias": (3 * width,)}
    found |= _linear(f"{begin}attn.out_proj.", width, width) | _norm(f"{begin}ln_2.", width)
    return found | _linear(f"{begin}mlp.c_fc.", width, 4 * width) | _linear(f"{begin}mlp.c_proj.", 4 * width, width)


def _norm(begin, width):
    return {f"{begin}weight": (width,), f"{begin}bias": (width,)}


def _linear(begin, d_in, d_out):
    return {f"{begin}weight": (d_out, d_in), f"{begin}bias": (d_out,)}


def filled(shapes):
    """Numbers for arrays of these shapes."""
    scale = {"logit_scale": np.array(2.5, np.float32)} if "logit_scale" in shapes else {}
    return classifier_states.filled({name: shape for name, shape in shapes.items() if name not in scale}) | scale


CASES = {
    "shifted": {"shapes": coca(), "cls_mask": "shifted", "activation": "gelu"},
    "valid": {"shapes": coca(image_width=24, layers=(1, 2, 1)), "cls_mask": "valid", "activation": "quick_gelu"},
}
"""The networks whose outputs are in fixtures/open_clip_reference.npz."""

HEADS = {"heads": 4, "text_heads": 3, "pooler_heads": 6}


def images(samples=4):
    """[samples, 12, 12, 3], as the network sees them."""
    return classifier_states.images(12, samples=samples)


def texts():
    """[4, 10]: from one that fills its row to an empty one."""
    rows = np.zeros((4, LENGTH), np.int64)
    rows[0] = [BOS, 5, 17, 3, 9, 11, 4, 25, 7, EOS]
    rows[1, :7] = [BOS, 5, 17, 3, 9, 11, EOS]
    rows[2, :3] = [BOS, 20, EOS]
    rows[3, :2] = [BOS, EOS]
    return rows
