// The compiled addon: one file for each kind of machine, `chancery.<platform>-<arch>.node`.
//
// `node addon.cjs` prints the file's name for this machine; that is how the build knows it.

'use strict'

const fileName = `chancery.${process.platform}-${process.arch}.node`

if (require.main === module) {
  console.log(fileName)
} else {
  try {
    module.exports = require(`./${fileName}`)
  } catch (cause) {
    throw new Error(
      `chancery: \`${fileName}\` cannot be loaded; this package was built for other machines, ` +
        'build it for this one with `cargo xtask npm`',
      { cause },
    )
  }
}
