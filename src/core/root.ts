/**
 * The directory of the package, in which the files lie that are read as they are. As deep below it as the program that is
 * built (`dist/cli`), so that both find it.
 */
export const ROOT = new URL('../../', import.meta.url);
