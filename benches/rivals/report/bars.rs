//! A plot of horizontal bars from zero, each with its figure at its end.

use crate::{
    lines::{frame, text},
    looks::look,
    markup::{Element, element},
    scale::Scale,
};

const WIDTH: f64 = 620.0;
const LEFT: f64 = 118.0;
/// Leaves room for the figures beside the longest bar.
const RIGHT: f64 = 520.0;
const TOP: f64 = 8.0;
const BAR: f64 = 15.0;
const BETWEEN_GROUPS: f64 = 10.0;

pub(crate) struct BarPlot<'p> {
    /// Unique on the page; names the elements that describe the plot to those who do not see it.
    pub(crate) id: &'p str,
    pub(crate) title: &'p str,
    pub(crate) description: &'p str,
    pub(crate) groups: Vec<Group>,
}

/// What belongs to one name, from top to bottom.
pub(crate) struct Group {
    pub(crate) name: String,
    pub(crate) bars: Vec<Bar>,
}

pub(crate) struct Bar {
    pub(crate) value: f64,
    pub(crate) label: String,
    /// A second state of the same, or a figure with a reservation.
    pub(crate) pale: bool,
}

impl BarPlot<'_> {
    pub(crate) fn svg(&self) -> Element {
        let heights = self.groups.iter().map(|group| group.bars.len() as f64 * BAR + BETWEEN_GROUPS);
        let bottom = TOP + heights.sum::<f64>();
        let highest = self.groups.iter().flat_map(|group| &group.bars).map(|bar| bar.value).fold(0.0, f64::max);
        // The figures stand at the bars, so that the axis needs no marks; it ends where the longest bar does.
        let scale = Scale::linear(0.0, highest, (LEFT, RIGHT));
        let mut top = TOP;
        let groups = self.groups.iter().map(|group| {
            let drawn = draw(group, top, &scale);
            top += group.bars.len() as f64 * BAR + BETWEEN_GROUPS;
            drawn
        });
        let groups: Vec<Element> = groups.collect();
        let zero = element("path").with("d", format!("M {LEFT} {TOP} V {:.1}", bottom - BETWEEN_GROUPS));
        frame(self.id, self.title, self.description, WIDTH, bottom)
            .children(groups)
            .child(element("g").with("class", "grid").child(zero))
    }
}

fn draw(group: &Group, top: f64, scale: &Scale) -> Element {
    let look = look(&group.name);
    let middle = top + group.bars.len() as f64 * BAR / 2.0;
    let class = if look.emphasised { "name emphasised" } else { "name" };
    let bars = group.bars.iter().enumerate().flat_map(|(number, bar)| {
        let (y, end) = (top + number as f64 * BAR, scale.place(bar.value.max(0.0)));
        let shape = element("rect")
            .with("class", if bar.pale { "bar pale" } else { "bar" })
            .with("x", LEFT)
            .with("y", format!("{y:.1}"))
            .with("width", format!("{:.1}", end - LEFT))
            .with("height", BAR - 2.0);
        [shape, text(end + 6.0, y + BAR - 4.0, "start").with("class", "figure").text(&bar.label)]
    });
    element("g")
        .with("class", look.class)
        .child(text(LEFT - 8.0, middle + 3.0, "end").with("class", class).text(&group.name))
        .children(bars)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_are_as_long_as_their_values() {
        let group = |name: &str, value| {
            let bar = Bar { value, label: format!("{value} B"), pale: false };
            Group { name: name.to_owned(), bars: vec![bar] }
        };
        let groups = vec![group("larder", 50.0), group("moka", 100.0)];
        let svg = BarPlot { id: "p", title: "t", description: "d", groups }.svg().to_string();
        let widths: Vec<f64> = svg
            .match_indices(" width=\"")
            .map(|(at, _)| svg[at + 8..].split('"').next().unwrap().parse().unwrap())
            .collect();
        assert!((widths[1] - 2.0 * widths[0]).abs() < 0.2, "{widths:?}");
        assert!(svg.contains(">100 B</text>"));
    }
}
