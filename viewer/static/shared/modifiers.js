/** Modifier keys that mean the same everywhere in the page. */

/**
 * Whether a click or a drag adds to the selection instead of replacing it.
 * @param {{shiftKey: boolean, ctrlKey: boolean, metaKey: boolean}} event
 */
export function extendsSelection({shiftKey, ctrlKey, metaKey}) {
  return shiftKey || ctrlKey || metaKey
}
