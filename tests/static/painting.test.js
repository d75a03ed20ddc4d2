import assert from "node:assert/strict"
import {test} from "node:test"

import {parseHexColor, PaintedTiles, tilesBetween} from "../../viewer/static/network/painted_tiles.js"
import {fittedSize, firstImageFile, toBase64, withoutOpacity} from "../../viewer/static/network/picture_file.js"

test("a tile is erased, painted and restored, and only changes are changes", () => {
  const tiles = new PaintedTiles()
  tiles.reset(4, 2)
  assert.equal(tiles.paint({row: 1, column: 1}, null), true)
  assert.equal(tiles.paint({row: 1, column: 1}, null), false)
  assert.deepEqual(tiles.patches(), [{top: 0.25, left: 0.5, bottom: 0.5, right: 1, color: null}])
  assert.equal(tiles.paint({row: 1, column: 1}, [255, 0, 0]), true)
  assert.equal(tiles.paint({row: 1, column: 1}, [255, 0, 0]), false)
  assert.deepEqual(tiles.fillOf({row: 1, column: 1}), [255, 0, 0])
  assert.equal(tiles.paint({row: 1, column: 1}, undefined), true)
  assert.equal(tiles.isEmpty, true)
})

test("outside of the image nothing is painted", () => {
  const tiles = new PaintedTiles()
  tiles.reset(4, 2)
  for (const tile of [{row: -1, column: 0}, {row: 0, column: 2}, {row: 4, column: 0}]) assert.equal(tiles.paint(tile, null), false)
  assert.equal(tiles.isEmpty, true)
})

test("a fast pointer leaves no gaps", () => {
  assert.deepEqual(tilesBetween({row: 0, column: 0}, {row: 0, column: 0}), [{row: 0, column: 0}])
  const line = tilesBetween({row: 0, column: 0}, {row: 2, column: 5})
  assert.equal(line.length, 6)
  assert.deepEqual(line.at(-1), {row: 2, column: 5})
})

test("a color is three numbers", () => {
  assert.deepEqual(parseHexColor("#ff8001"), [255, 128, 1])
})

test("a large picture fits a square, and a small one stays", () => {
  assert.deepEqual(fittedSize(4000, 3000, 320), {width: 320, height: 240})
  assert.deepEqual(fittedSize(20, 10, 320), {width: 20, height: 10})
  assert.deepEqual(fittedSize(9000, 2, 320), {width: 320, height: 1})
})

test("pixels are sent as red, green and blue", () => {
  assert.deepEqual([...withoutOpacity([1, 2, 3, 255, 4, 5, 6, 255])], [1, 2, 3, 4, 5, 6])
  const bytes = Uint8Array.from({length: 100_000}, (_, i) => i % 256)
  assert.deepEqual(Buffer.from(toBase64(bytes), "base64"), Buffer.from(bytes))
})

test("only images are taken of what was dropped", () => {
  const files = /** @type {any} */ ([{type: "text/plain"}, {type: "image/png"}])
  assert.equal(firstImageFile(/** @type {any} */ ({files})), files[1])
  assert.equal(firstImageFile(null), undefined)
})
