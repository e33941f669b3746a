//! How each contestant is drawn, the same in all plots. Colours are told apart by those who see few of them, and every
//! series has a marker or a dash of its own as well.

use crate::markup::{Element, element};

/// The class gives the colour, in `style.css`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Look {
    pub(crate) class: &'static str,
    /// Of `stroke-dasharray`; empty for a line without gaps.
    pub(crate) dash: &'static str,
    marker: Marker,
    pub(crate) width: f64,
    /// Drawn above the others.
    pub(crate) emphasised: bool,
}

#[derive(Debug, Clone, Copy)]
enum Marker {
    Circle,
    Square,
    Triangle,
    Diamond,
    None,
}

const SOLID: &str = "";
const DASHED: &str = "6 3";
const DOTTED: &str = "2 3";

/// What is not known is grey.
pub(crate) fn look(name: &str) -> Look {
    let rival = |class, dash, marker| Look { class, dash, marker, width: 1.6, emphasised: false };
    match name {
        "larder" => Look { width: 3.2, emphasised: true, ..rival("larder", SOLID, Marker::Circle) },
        "larder with" => Look { emphasised: true, ..rival("larder", DASHED, Marker::Circle) },
        "larder, no pause" => Look { emphasised: true, ..rival("larder", DOTTED, Marker::Circle) },
        "quick_cache" | "MetaClient" => rival("quick-cache", SOLID, Marker::Square),
        "moka" => rival("moka", SOLID, Marker::Triangle),
        "moka settled" => rival("moka", DASHED, Marker::Triangle),
        "foyer" => rival("foyer", SOLID, Marker::Diamond),
        "foyer s3-fifo" => rival("foyer", DASHED, Marker::Diamond),
        "optimum" => rival("optimum", DOTTED, Marker::None),
        "LRU" => rival("textbook", DASHED, Marker::None),
        _ => rival("textbook", DOTTED, Marker::None),
    }
}

impl Look {
    /// The marker at a point. A hollow one tells that the figure comes with a reservation.
    pub(crate) fn marker(&self, x: f64, y: f64, hollow: bool) -> Element {
        const RADIUS: f64 = 3.6;
        let (left, right, top, bottom) = (x - RADIUS, x + RADIUS, y - RADIUS, y + RADIUS);
        let path = match self.marker {
            Marker::Circle => {
                let arc = format!("a {RADIUS} {RADIUS} 0 1 0");
                format!("M {left:.1} {y:.1} {arc} {0} 0 {arc} -{0} 0 Z", 2.0 * RADIUS)
            }
            Marker::Square => format!("M {left:.1} {top:.1} H {right:.1} V {bottom:.1} H {left:.1} Z"),
            Marker::Triangle => format!("M {x:.1} {top:.1} L {right:.1} {bottom:.1} H {left:.1} Z"),
            Marker::Diamond => format!("M {x:.1} {top:.1} L {right:.1} {y:.1} {x:.1} {bottom:.1} {left:.1} {y:.1} Z"),
            Marker::None => format!("M {x:.1} {y:.1} h 0"),
        };
        let class = if hollow { "marker hollow" } else { "marker" };
        element("path").with("class", class).with("d", path)
    }
}
