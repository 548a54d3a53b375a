//! The colours, each with its counterpart on a dark page.

use plotters::style::RGBColor;

use crate::stage::Stage;

/// A colour on white and the colour that replaces it on a dark page.
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
const PPO: Ink = Ink { light: RGBColor(0x1d, 0x75, 0x62), dark: "#63c9b0" };

const DPO: Ink = Ink { light: RGBColor(0x7a, 0x4a, 0x9e), dark: "#c49be6" };
/// What an independent judge says.
pub const GOLD: Ink = Ink { light: RGBColor(0x94, 0x68, 0x00), dark: "#e3b341" };

/// The lines of several runs in one picture, told apart by colour-blind eyes too.
pub const SERIES: [Ink; 8] = [
    PPO,
    Ink { light: RGBColor(0xc2, 0x4e, 0x1a), dark: "#f2935f" },
    SFT,
    DPO,
    GOLD,
    Ink { light: RGBColor(0xb8, 0x2e, 0x63), dark: "#f085b0" },
    Ink { light: RGBColor(0x3f, 0x4a, 0x55), dark: "#c6d0da" },
    Ink { light: RGBColor(0x4b, 0x91, 0xb8), dark: "#86d3f5" },
];

/// The colour of a stage's lines.
pub fn accent(stage: Stage) -> Ink {
    match stage {
        Stage::Sft => SFT,
        Stage::Reward => REWARD,
        Stage::Ppo => PPO,
        Stage::Dpo => DPO,
    }
}

/// Rules that repaint an inlined picture on a dark page: a rule outweighs the attribute that plotters writes.
pub fn dark_rules() -> String {
    let mut rules = String::new();
    let alone = [TEXT, MUTED, GRID, AXIS, REWARD];
    for Ink { light: RGBColor(r, g, b), dark } in alone.into_iter().chain(SERIES) {
        let light = format!("#{r:02X}{g:02X}{b:02X}");
        rules.push_str(&format!(
            "svg [stroke=\"{light}\"]{{stroke:{dark}}}svg [fill=\"{light}\"]{{fill:{dark}}}"
        ));
    }
    rules
}
