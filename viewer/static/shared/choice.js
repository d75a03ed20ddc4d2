/** Choosing from a list. */

/**
 * Call back when another option of a list is chosen. After a choice by pointer, the keys of the page work again immediately; by
 * keyboard, the list keeps the focus, because each arrow key is a choice.
 * @param {HTMLSelectElement} list
 * @param {(value: string) => void} callback
 */
export function onChoice(list, callback) {
  let isByPointer = false
  list.addEventListener("pointerdown", () => { isByPointer = true })
  list.addEventListener("keydown", () => { isByPointer = false })
  list.addEventListener("change", () => {
    callback(list.value)
    if (isByPointer) list.blur()
  })
}
