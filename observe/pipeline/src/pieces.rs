//! Cutting what comes in at once into entries that the log takes.

use std::sync::Arc;

use belfry_signal::{PointValue, SeriesBatch, SeriesPoints};

/// Bytes of one piece, about: a quarter of what `record_bytes_max` is by default.
const PIECE_BYTES: usize = 256 << 10;

#[derive(Default)]
struct Cutter {
    pieces: Vec<SeriesBatch>,
    piece: SeriesBatch,
    bytes: usize,
}

/// The batch in pieces, each with as much as fits an entry of the log.
pub(crate) fn pieces(batch: SeriesBatch) -> Vec<SeriesBatch> {
    let mut cutter = Cutter::default();
    for metric in batch.metadata {
        cutter.make_room(metric.name.len() + metric.help.len() + 32);
        cutter.piece.metadata.push(metric);
    }
    for series in batch.series {
        cutter.push(series);
    }
    if !cutter.piece.series.is_empty() || !cutter.piece.metadata.is_empty() {
        cutter.pieces.push(cutter.piece);
    }
    cutter.pieces
}

impl Cutter {
    fn make_room(&mut self, bytes: usize) {
        if self.bytes > 0 && self.bytes + bytes > PIECE_BYTES {
            self.pieces.push(std::mem::take(&mut self.piece));
            self.bytes = 0;
        }
        self.bytes += bytes;
    }

    fn push(&mut self, series: SeriesPoints) {
        let label_bytes: usize = series.labels.iter().map(|(name, value)| name.len() + value.len() + 4).sum();
        let exemplar_bytes = series.exemplars.len() * 160;
        self.make_room(label_bytes + exemplar_bytes + 16);
        let labels = Arc::clone(&series.labels);
        let created_ms = series.created_ms;
        self.piece.series.push(SeriesPoints { points: Vec::new(), ..series });
        for point in series.points {
            let before = self.pieces.len();
            self.make_room(weight(&point.1));
            if self.pieces.len() > before {
                let labels = Arc::clone(&labels);
                self.piece.series.push(SeriesPoints {
                    labels,
                    created_ms,
                    points: Vec::new(),
                    exemplars: Vec::new(),
                });
            }
            if let Some(last) = self.piece.series.last_mut() {
                last.points.push(point);
            }
        }
    }
}

fn weight(value: &PointValue) -> usize {
    match value {
        PointValue::Float(_) => 16,
        PointValue::Histogram(native) => {
            64 + (native.positive.len() + native.negative.len() + native.custom_bounds.len()) * 12
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_lost_and_order_is_kept() {
        let series = |name: &str, points: i64| SeriesPoints {
            labels: [(Arc::from("__name__"), Arc::from(name))].into(),
            created_ms: None,
            points: (0..points).map(|time| (time, PointValue::Float(0.5))).collect(),
            exemplars: Vec::new(),
        };
        let batch = SeriesBatch { series: vec![series("a", 40_000), series("b", 3)], metadata: Vec::new() };
        let cut = pieces(batch.clone());
        assert!(cut.len() > 2);
        for (at, wanted) in batch.series.iter().enumerate() {
            let held = cut.iter().flat_map(|piece| &piece.series).filter(|held| held.labels == wanted.labels);
            let points: Vec<_> = held.flat_map(|held| held.points.clone()).collect();
            assert_eq!(points, wanted.points, "series {at}");
        }
        assert!(pieces(SeriesBatch::default()).is_empty());
    }
}
