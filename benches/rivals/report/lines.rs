//! A plot of lines, each with its name at its end.

use crate::{
    labels::spread,
    looks::look,
    markup::{Element, element},
    scale::Scale,
};

const WIDTH: f64 = 620.0;
const HEIGHT: f64 = 330.0;
const LEFT: f64 = 62.0;
/// Leaves room for the longest name beside the lines' ends.
const RIGHT: f64 = 486.0;
const TOP: f64 = 14.0;
const BOTTOM: f64 = 282.0;
const LABEL_GAP: f64 = 15.0;
/// Between neighbouring series at one place of an axis of categories, lest their whiskers hide each other.
const DODGE: f64 = 4.0;

pub(crate) struct LinePlot<'p> {
    /// Unique on the page; names the elements that describe the plot to those who do not see it.
    pub(crate) id: &'p str,
    pub(crate) title: &'p str,
    /// What the plot shows, in a sentence or two.
    pub(crate) description: &'p str,
    pub(crate) x: Across,
    pub(crate) x_label: &'p str,
    pub(crate) y: Up,
    pub(crate) y_label: &'p str,
    pub(crate) lines: Vec<Line>,
}

/// The axis from left to right.
pub(crate) enum Across {
    /// Points lie at the numbers of these, from 0.
    Categories(Vec<String>),
    Logarithmic,
}

/// The axis from bottom to top.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Up {
    FromZero,
    /// From about the lowest point, where what matters are differences.
    FromLowest,
    Logarithmic,
}

pub(crate) struct Line {
    pub(crate) name: String,
    pub(crate) points: Vec<Point>,
}

pub(crate) struct Point {
    pub(crate) x: f64,
    pub(crate) y: f64,
    /// How far it scatters, the lower end first.
    pub(crate) whisker: Option<(f64, f64)>,
    /// Whether a reservation applies, which the text beside the plot explains.
    pub(crate) hollow: bool,
    /// What a pointer that rests on it is told.
    pub(crate) note: String,
}

impl LinePlot<'_> {
    pub(crate) fn svg(&self) -> Element {
        let (x_scale, y_scale) = (self.x_scale(), self.y_scale());
        let place = |line: usize, x: f64| match &x_scale {
            Some(scale) => scale.place(x),
            None => self.category_place(x) + (line as f64 - (self.lines.len() - 1) as f64 / 2.0) * DODGE,
        };
        // Emphasised lines are drawn last, above the others.
        let mut order: Vec<usize> = (0..self.lines.len()).collect();
        order.sort_by_key(|&line| look(&self.lines[line].name).emphasised);
        let curves = order.iter().map(|&line| curve(&self.lines[line], |x| place(line, x), &y_scale));
        frame(self.id, self.title, self.description, WIDTH, HEIGHT)
            .child(self.grid(&y_scale))
            .child(self.feet(x_scale.as_ref()))
            .children(curves)
            .children(self.names(place, &y_scale))
    }

    fn points(&self) -> impl Iterator<Item = &Point> {
        self.lines.iter().flat_map(|line| &line.points)
    }

    fn x_scale(&self) -> Option<Scale> {
        let Across::Logarithmic = self.x else { return None };
        let lowest = self.points().map(|point| point.x).fold(f64::INFINITY, f64::min);
        let highest = self.points().map(|point| point.x).fold(lowest, f64::max);
        Some(Scale::logarithmic(lowest, highest, (LEFT, RIGHT)))
    }

    fn y_scale(&self) -> Scale {
        let lower = |point: &Point| point.whisker.map_or(point.y, |(low, _)| low.min(point.y));
        let upper = |point: &Point| point.whisker.map_or(point.y, |(_, high)| high.max(point.y));
        let highest = self.points().map(upper).fold(0.0, f64::max);
        let lowest = self.points().map(lower).fold(f64::INFINITY, f64::min).min(highest);
        match self.y {
            Up::FromZero => Scale::linear(0.0, highest, (BOTTOM, TOP)),
            Up::FromLowest => Scale::linear(lowest, highest, (BOTTOM, TOP)),
            Up::Logarithmic => {
                let above_zero = self.points().map(lower).filter(|&value| value > 0.0);
                let lowest = above_zero.fold(f64::INFINITY, f64::min);
                Scale::logarithmic(lowest.min(highest.max(1.0)), highest.max(1.0), (BOTTOM, TOP))
            }
        }
    }

    fn category_place(&self, number: f64) -> f64 {
        let count = match &self.x {
            Across::Categories(names) => names.len() as f64,
            Across::Logarithmic => 1.0,
        };
        LEFT + (number + 0.5) * (RIGHT - LEFT) / count
    }

    fn grid(&self, y_scale: &Scale) -> Element {
        let rules = y_scale.ticks.iter().flat_map(|&tick| {
            let y = y_scale.place(tick);
            [
                element("path").with("d", format!("M {LEFT} {y:.1} H {RIGHT}")),
                text(LEFT - 8.0, y + 4.0, "end").text(short(tick)),
            ]
        });
        let middle = (TOP + BOTTOM) / 2.0;
        let label = text(14.0, middle, "middle").with("transform", format!("rotate(-90 14 {middle})"));
        element("g").with("class", "grid").children(rules).child(label.text(self.y_label))
    }

    fn feet(&self, x_scale: Option<&Scale>) -> Element {
        let foot = |x: f64, name: String| text(x, BOTTOM + 18.0, "middle").text(name);
        let marks: Vec<Element> = match (&self.x, x_scale) {
            (Across::Categories(names), _) => {
                let places = (0..names.len()).map(|number| self.category_place(number as f64));
                places.zip(names).map(|(x, name)| foot(x, name.clone())).collect()
            }
            (Across::Logarithmic, Some(scale)) => {
                scale.ticks.iter().map(|&tick| foot(scale.place(tick), short(tick))).collect()
            }
            (Across::Logarithmic, None) => Vec::new(),
        };
        let label = text((LEFT + RIGHT) / 2.0, BOTTOM + 38.0, "middle").text(self.x_label);
        element("g").with("class", "feet").children(marks).child(label)
    }

    fn names(&self, place: impl Fn(usize, f64) -> f64, y_scale: &Scale) -> Vec<Element> {
        const LABEL_LEFT: f64 = RIGHT + 18.0;
        let ends: Vec<(usize, &Point)> =
            (0..self.lines.len()).filter_map(|line| Some((line, self.lines[line].points.last()?))).collect();
        let wanted: Vec<f64> = ends.iter().map(|(_, end)| y_scale.place(end.y)).collect();
        let places = spread(&wanted, LABEL_GAP, TOP, BOTTOM);
        let named = ends.iter().zip(wanted).zip(places).map(|((&(line, end), from), to)| {
            let Line { name, .. } = &self.lines[line];
            let look = look(name);
            let x = place(line, end.x) + 6.0;
            let leader = format!("M {x:.1} {from:.1} L {:.1} {to:.1} H {:.1}", LABEL_LEFT - 8.0, LABEL_LEFT - 3.0);
            let class = if look.emphasised { "name emphasised" } else { "name" };
            element("g")
                .with("class", look.class)
                .child(element("path").with("class", "leader").with("d", leader))
                .child(text(LABEL_LEFT, to + 4.0, "start").with("class", class).text(name))
        });
        named.collect()
    }
}

fn curve(line: &Line, place: impl Fn(f64) -> f64, y_scale: &Scale) -> Element {
    let look = look(&line.name);
    let course: Vec<String> =
        line.points.iter().map(|point| format!("{:.1} {:.1}", place(point.x), y_scale.place(point.y))).collect();
    let mut stroke = element("path")
        .with("class", "line")
        .with("d", format!("M {}", course.join(" L ")))
        .with("stroke-width", look.width);
    if !look.dash.is_empty() {
        stroke = stroke.with("stroke-dasharray", look.dash);
    }
    let whiskers = line.points.iter().filter_map(|point| {
        let (low, high) = point.whisker?;
        let (x, low, high) = (place(point.x), y_scale.place(low), y_scale.place(high));
        let cap = |y: f64| format!("M {:.1} {y:.1} h 4", x - 2.0);
        let path = format!("M {x:.1} {low:.1} V {high:.1} {} {}", cap(low), cap(high));
        Some(element("path").with("class", "whisker").with("d", path))
    });
    let markers = line.points.iter().map(|point| {
        let marker = look.marker(place(point.x), y_scale.place(point.y), point.hollow);
        marker.child(element("title").text(format!("{}: {}", line.name, point.note)))
    });
    element("g").with("class", look.class).child(stroke).children(whiskers).children(markers)
}

/// The drawing itself, described for those who do not see it.
pub(crate) fn frame(id: &str, title: &str, description: &str, width: f64, height: f64) -> Element {
    let (title_id, description_id) = (format!("{id}-title"), format!("{id}-description"));
    element("svg")
        .with("viewBox", format!("0 0 {width} {height}"))
        .with("role", "img")
        .with("aria-labelledby", format!("{title_id} {description_id}"))
        .child(element("title").with("id", title_id).text(title))
        .child(element("desc").with("id", description_id).text(description))
}

pub(crate) fn text(x: f64, y: f64, anchor: &str) -> Element {
    element("text").with("x", format!("{x:.1}")).with("y", format!("{y:.1}")).with("text-anchor", anchor)
}

/// A mark of an axis in few characters.
fn short(value: f64) -> String {
    let (scaled, unit) = match value {
        value if value >= 1e6 => (value / 1e6, "M"),
        value if value >= 1e3 => (value / 1e3, "k"),
        value => (value, ""),
    };
    // Marks have few digits; what a division adds is noise.
    format!("{}{unit}", (scaled * 1e6).round() / 1e6)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plot(lines: Vec<Line>) -> String {
        let across = Across::Categories(vec!["1".to_owned(), "2".to_owned()]);
        let plot = LinePlot {
            id: "p",
            title: "t",
            description: "d",
            x: across,
            x_label: "threads",
            y: Up::FromZero,
            y_label: "M/s",
            lines,
        };
        plot.svg().to_string()
    }

    fn line(name: &str, y: f64) -> Line {
        let point = |x| Point { x, y, whisker: Some((y / 2.0, y * 2.0)), hollow: false, note: format!("{y} at {x}") };
        Line { name: name.to_owned(), points: vec![point(0.0), point(1.0)] }
    }

    #[test]
    fn every_line_is_named_and_none_hides_another_name() {
        let svg = plot(vec![line("larder", 50.0), line("moka", 50.0), line("LRU", 50.0)]);
        let place = |name: &str| -> f64 {
            let end = svg.rfind(&format!(">{name}</text>")).unwrap();
            let y = &svg[svg[..end].rfind(" y=\"").unwrap() + 4..];
            y[..y.find('"').unwrap()].parse().unwrap()
        };
        let mut places = ["larder", "moka", "LRU"].map(place);
        places.sort_by(f64::total_cmp);
        assert!(places.windows(2).all(|pair| pair[1] - pair[0] > LABEL_GAP - 0.2), "{places:?}");
    }

    #[test]
    fn whiskers_stay_on_the_drawing() {
        let svg = plot(vec![line("larder", 49.0)]);
        // 98 is the upper end: the axis reaches to 100.
        assert!(svg.contains(">100</text>"), "{svg}");
    }

    #[test]
    fn marks_are_short() {
        assert_eq!([0.2, 20.0, 1_500.0, 2e6].map(short), ["0.2", "20", "1.5k", "2M"]);
    }
}
