export function page() {}
