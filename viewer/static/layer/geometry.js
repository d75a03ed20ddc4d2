/** Points, hit tests and selections on a canvas of thumbnails; nothing here needs a browser. */

import {clamp} from "../shared/math.js"

/** @typedef {[x: number, y: number]} Point CSS px from the upper left corner of the canvas */
/** @typedef {(point: Point) => boolean} Region whether a point lies inside */

/**
 * Return the index of the thumbnail under a point, -1 if there is none. Where several overlap, the
 * one with the nearest center wins.
 * @param {readonly Point[]} centers
 * @param {Point} point
 * @param {number} halfSide of a thumbnail, px
 */
export function hitThumbnail(centers, [x, y], halfSide) {
  let best = -1, nearest = Infinity
  centers.forEach((center, i) => {
    const dx = center[0] - x, dy = center[1] - y, distance = dx * dx + dy * dy
    if (Math.max(Math.abs(dx), Math.abs(dy)) <= halfSide && distance < nearest) [best, nearest] = [i, distance]
  })
  return best
}

/**
 * Return the box between two opposite corners.
 * @param {Point} a
 * @param {Point} b
 * @returns {Region}
 */
export function boxRegion(a, b) {
  const [left, right] = [Math.min(a[0], b[0]), Math.max(a[0], b[0])]
  const [top, bottom] = [Math.min(a[1], b[1]), Math.max(a[1], b[1])]
  return ([x, y]) => x >= left && x <= right && y >= top && y <= bottom
}

/**
 * Return the inside of a closed path, by the even-odd rule.
 * @param {readonly Point[]} path
 * @returns {Region}
 */
export function lassoRegion(path) {
  return ([x, y]) => {
    let inside = false
    path.forEach(([x1, y1], i) => {
      const [x0, y0] = path.at(i - 1) ?? [x1, y1]
      if ((y1 > y) !== (y0 > y) && x < (x0 - x1) * (y - y1) / (y0 - y1) + x1) inside = !inside
    })
    return inside
  }
}

/**
 * Return the index of the nearest thumbnail in a direction, -1 if there is none. What lies off to the side counts as
 * farther away.
 * @param {readonly Point[]} centers
 * @param {number} from index of the thumbnail that the way begins at
 * @param {Point} direction of length 1
 */
export function neighborInDirection(centers, from, [dx, dy]) {
  const [x, y] = centers[from]
  let best = -1, least = Infinity
  centers.forEach((center, i) => {
    const ahead = (center[0] - x) * dx + (center[1] - y) * dy
    const aside = Math.abs((center[0] - x) * dy - (center[1] - y) * dx)
    const distance = ahead + 2 * aside
    if (i !== from && ahead > aside / 2 && distance < least) [best, least] = [i, distance]
  })
  return best
}

/** @typedef {{index: number, weight: number}} Neighbor */

/**
 * Return the nearest thumbnails, with weights that fall with the distance and sum to 1.
 * @param {readonly Point[]} centers
 * @param {Point} point
 * @param {number} count how many at most
 * @param {(index: number) => boolean} isCandidate
 * @returns {Neighbor[]}
 */
export function nearestNeighbors(centers, [x, y], count, isCandidate) {
  const near = centers
    .map((center, index) => ({index, distance: Math.hypot(center[0] - x, center[1] - y)}))
    .filter(({index, distance}) => isCandidate(index) && Number.isFinite(distance))
    .sort((a, b) => a.distance - b.distance)
    .slice(0, count)
    .map(({index, distance}) => ({index, weight: 1 / (distance + 2)})) // + 2 px: bounded at distance 0
  const total = near.reduce((sum, {weight}) => sum + weight, 0)
  return near.map(({index, weight}) => ({index, weight: weight / total}))
}

/**
 * Move an enlarged thumbnail to where the edge of the view does not clip it; one whose center is out
 * of view stays there.
 * @param {Point} center
 * @param {number} side of the thumbnail, px
 * @param {[width: number, height: number]} size of the view, px
 * @returns {Point}
 */
export function keepInside([x, y], side, [width, height]) {
  const half = side / 2 + 1.5 // with its border
  if (x < 0 || y < 0 || x > width || y > height) return [x, y]
  return [clamp(x, half, Math.max(half, width - half)), clamp(y, half, Math.max(half, height - half))]
}
