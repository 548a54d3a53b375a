//! The colours, each with its counterpart on a dark page.

use plotters::style::RGBColor;

use crate::stage::Stage;

/// A colour on white and the colour that stands for it on a dark page.
#[derive(Clone, Copy, Debug)]
pub struct Ink {
    /// On white, as drawn.
    pub light: RGBColor,
    dark: &'static str,
}

/// Titles and held-out dots.
pub const TEXT: Ink = Ink { light: RGBColor(0x1f, 0x29, 0x33), dark: "#e4e7eb" };
/// Ticks and axis labels.
pub const MUTED: Ink = Ink { light: RGBColor(0x5f, 0x6b, 0x76), dark: "#9aa5b1" };
/// Grid lines.
pub const GRID: Ink = Ink { light: RGBColor(0xe4, 0xe7, 0xeb), dark: "#323a43" };
/// Axis lines.
pub const AXIS: Ink = Ink { light: RGBColor(0xb4, 0xbc, 0xc4), dark: "#56616d" };

const SFT: Ink = Ink { light: RGBColor(0x2b, 0x62, 0xa3), dark: "#7db1ec" };
const REWARD: Ink = Ink { light: RGBColor(0xa3, 0x5a, 0x1f), dark: "#e6a76c" };
const DPO: Ink = Ink { light: RGBColor(0x7b, 0x3f, 0x8f), dark: "#c9a0d9" };
const PPO: Ink = Ink { light: RGBColor(0x1d, 0x75, 0x62), dark: "#63c9b0" };

/// The colour of a stage's lines.
pub fn accent(stage: Stage) -> Ink {
    match stage {
        Stage::Sft => SFT,
        Stage::Reward => REWARD,
        Stage::Dpo => DPO,
        Stage::Ppo => PPO,
    }
}

/// Rules that repaint an inlined picture on a dark page: a rule outweighs the attribute that plotters writes.
pub fn dark_rules() -> String {
    let mut rules = String::new();
    for Ink { light: RGBColor(r, g, b), dark } in [TEXT, MUTED, GRID, AXIS, SFT, REWARD, DPO, PPO] {
        let light = format!("#{r:02X}{g:02X}{b:02X}");
        rules.push_str(&format!(
            "svg [stroke=\"{light}\"]{{stroke:{dark}}}svg [fill=\"{light}\"]{{fill:{dark}}}"
        ));
    }
    rules
}
