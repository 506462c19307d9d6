"""Colours and fonts: a viewing station, one accent, system fonts, readable in light and dark."""

from __future__ import annotations

from pathlib import Path

import gradio as gr

STYLE = Path(__file__).with_name("style.css")


def theme() -> gr.themes.Base:
    """Gradio's own greys and sky blue are too faint to read: contrast below 4.5."""
    accent = {f"button_primary_background_fill{mode}": "*primary_700" for mode in ("", "_dark")}
    accent |= {f"button_primary_background_fill_hover{mode}": "*primary_800" for mode in ("", "_dark")}
    accent |= {f"button_primary_text_color{mode}": "white" for mode in ("", "_dark")}
    return gr.themes.Base(
        primary_hue=gr.themes.colors.sky,
        neutral_hue=gr.themes.colors.slate,
        radius_size=gr.themes.sizes.radius_sm,
        font=[gr.themes.Font(name) for name in ("system-ui", "Segoe UI", "Roboto", "Helvetica Neue", "sans-serif")],
        font_mono=[gr.themes.Font(name) for name in ("ui-monospace", "Consolas", "monospace")],
    ).set(
        body_text_color_subdued="*neutral_600",
        body_text_color_subdued_dark="*neutral_400",
        block_info_text_color="*neutral_600",
        block_info_text_color_dark="*neutral_400",
        block_label_text_color="*neutral_700",
        block_label_text_color_dark="*neutral_200",
        block_title_text_color="*neutral_700",
        block_title_text_color_dark="*neutral_200",
        link_text_color="*primary_700",
        link_text_color_dark="*primary_300",
        link_text_color_hover="*primary_800",
        link_text_color_hover_dark="*primary_200",
        link_text_color_visited="*primary_700",
        link_text_color_visited_dark="*primary_300",
        slider_color="*primary_600",
        slider_color_dark="*primary_400",
        **accent,
    )
